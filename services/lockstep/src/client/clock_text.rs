//! Clocks as one screen of text: each server, each pair of a server and a witness, what is wrong and what to do. Pure.

use lockstep_model::ServerId;
use lockstep_proto::timeguard::v1::{
    ClockReport, ClockWitness, Fence, clock_report::Verdict, clock_witness::Kind, fence::State,
};

use super::{clock::Looked, shape, status_wrong::failure_lines};
use crate::out::{self, Table, Tone};

/// What the sign of an offset means.
const LEGEND: &str =
    "an offset says how far the others are ahead (+) of the clock of the server, or behind it (-)";

/// The whole screen.
pub(crate) fn page(looked: &[Looked]) -> String {
    if looked.is_empty() {
        return "no server has announced itself".to_owned();
    }
    let mut text = vec![servers(looked)];
    let pairs: Vec<Vec<String>> = looked.iter().flat_map(pairs).collect();
    if !pairs.is_empty() {
        let header = ["SERVER", "WITNESS", "SAYS", "OFFSET", "HEARD", "WHY"];
        let table = Table { header: &header, right: &[], elastic: &[1, 5], optional: &[4] }.print(&pairs);
        text.extend([String::new(), table, String::new(), format!(" {LEGEND}")]);
    }
    let wrong: Vec<String> = looked.iter().flat_map(wrong).collect();
    if !wrong.is_empty() {
        text.extend([String::new(), out::painted(Tone::Head, "What is wrong, and what to do")]);
        text.extend(wrong);
    }
    text.join("\n")
}

/// The verdicts and fences in one line: a new one means that something changed.
pub(crate) fn line(looked: &[Looked]) -> String {
    let one = |it: &Looked| match &it.report {
        Err(failure) => format!("{} is not heard ({})", it.server, failure.reason),
        Ok(report) => {
            let reason = fenced(report).map(|failure| format!(" ({})", out::escaped(&failure.reason)));
            let (verdict, state) = (shape::clock_verdict(report), fence_word(report));
            format!("{} {verdict} {state}{}", it.server, reason.unwrap_or_default())
        }
    };
    looked.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn servers(looked: &[Looked]) -> String {
    let row = |it: &Looked| {
        let mut row = vec![it.server.to_string()];
        match &it.report {
            Err(_) => row.extend(["UNMEASURED", "-", "-", "-", "-"].map(str::to_owned)),
            Ok(report) => row.extend([
                shape::clock_verdict(report),
                offset(report.offset, report.uncertainty),
                report.limit.map_or_else(dash, |limit| out::duration(shape::span(limit))),
                fence_word(report),
                report.last_step.map_or_else(dash, |step| {
                    let age = step.age.map(|age| format!(", {} ago", out::duration(shape::span(age))));
                    format!("{}{}", offset(step.offset, None), age.unwrap_or_default())
                }),
            ]),
        }
        row
    };
    let header = ["SERVER", "CLOCK", "OFFSET", "LIMIT", "FENCE", "LAST SET BY"];
    let rows: Vec<_> = looked.iter().map(row).collect();
    Table { header: &header, right: &[], elastic: &[], optional: &[3, 5] }.print(&rows)
}

/// One row for each witness of a server.
fn pairs(it: &Looked) -> Vec<Vec<String>> {
    let row = |witness: &ClockWitness| {
        let age = witness.age.map(|age| format!("{} ago", out::duration(shape::span(age))));
        let failure = witness.failure.as_ref();
        vec![
            it.server.to_string(),
            name(witness),
            shape::witness_state(witness),
            offset(witness.offset, witness.uncertainty),
            age.unwrap_or_else(|| "never".to_owned()),
            failure.map_or_else(String::new, |it| {
                format!("{} ({})", out::escaped(&it.message), out::escaped(&it.reason))
            }),
        ]
    };
    it.report.iter().flat_map(|report| report.witnesses.iter().map(row)).collect()
}

fn name(witness: &ClockWitness) -> String {
    let name = out::escaped(&witness.name);
    match witness.kind() {
        Kind::Peer => name,
        Kind::Registry | Kind::Kernel => shape::witness_kind(witness).to_lowercase(),
        Kind::Ntp | Kind::Unspecified => {
            format!("{} {name}", shape::witness_kind(witness).to_lowercase()).trim_end().to_owned()
        }
    }
}

/// What somebody should look at.
fn wrong(it: &Looked) -> Vec<String> {
    let server = format!("server {}", it.server);
    let report = match &it.report {
        Err(failure) => return failure_lines(&server, &failure.clone().into_wire()),
        Ok(report) => report,
    };
    let mut lines = Vec::new();
    let fence = report.fence.clone().unwrap_or_default();
    match (fence.state(), &fence.failure) {
        (State::Fenced, failure) => {
            let age = fence.age.map(|age| format!(" for {}", out::duration(shape::span(age))));
            let what = format!("{server} is FENCED{}", age.unwrap_or_default());
            lines.extend(failure_lines(&what, &failure.clone().unwrap_or_default()));
        }
        (State::Overruled, _) => lines.extend(overrule_lines(&format!("  {server}"), &fence)),
        _ if matches!(report.verdict(), Verdict::Doubtful | Verdict::Skewed) => {
            let (verdict, state) = (shape::clock_verdict(report), fence_word(report));
            lines.push(format!("  the clock of {server} is {verdict}, its fence is {state}"));
            if !report.why.is_empty() {
                lines.push(format!("      why   {}", out::escaped(&report.why)));
            }
        }
        _ => {}
    }
    if !report.services_to_restart.is_empty() {
        let services: Vec<String> =
            report.services_to_restart.iter().map(|service| out::escaped(service)).collect();
        lines.push(format!("      left  {} of {server} to be restarted", services.join(" and ")));
    }
    lines
}

fn overrule_lines(what: &str, fence: &Fence) -> Vec<String> {
    let said = fence.clock_override.clone().unwrap_or_default();
    let left = said.time_left.map_or_else(dash, |left| out::duration(shape::span(left)));
    let mut lines = vec![
        format!("{what} originates for another {left}, whatever is said of its clock"),
        format!("      by    {}", out::escaped(&said.principal)),
        format!("      why   {}", out::escaped(&said.justification)),
    ];
    lines.push(match &fence.failure {
        Some(failure) => {
            format!("      over  {} ({})", out::escaped(&failure.message), out::escaped(&failure.reason))
        }
        None => "      over  nothing: it might originate without that, too".to_owned(),
    });
    lines
}

/// What is so after an override began or ended.
pub(crate) fn overruled(server: &ServerId, report: &ClockReport, is_cancelled: bool) -> String {
    let fence = report.fence.clone().unwrap_or_default();
    if fence.state() == State::Overruled {
        return overrule_lines(server.as_str(), &fence).join("\n");
    }
    let what = match is_cancelled {
        true => format!("{server} is judged by its clock again: {}", fence_word(report)),
        false => format!("{server} is not overruled: {}", fence_word(report)),
    };
    let why = fenced(report).map(|failure| failure_lines(&format!("server {server}"), failure));
    [vec![what], why.unwrap_or_default()].concat().join("\n")
}

fn fence_word(report: &ClockReport) -> String {
    report.fence.as_ref().map_or_else(dash, shape::fence_state)
}

fn fenced(report: &ClockReport) -> Option<&lockstep_proto::shared::v1::Failure> {
    report.fence.as_ref().filter(|fence| fence.state() == State::Fenced)?.failure.as_ref()
}

fn offset(offset: Option<prost_types::Duration>, uncertainty: Option<prost_types::Duration>) -> String {
    offset.map_or_else(dash, |offset| out::offset(shape::nanos(offset), uncertainty.map(shape::span)))
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use lockstep_chassis::status::Failure;
    use lockstep_model::Reason;
    use lockstep_proto::timeguard::v1::{ClockOverride, clock_witness};

    use super::*;

    fn span(millis: i64) -> Option<prost_types::Duration> {
        let nanos = i32::try_from(millis % 1_000).expect("small") * 1_000_000;
        Some(prost_types::Duration { seconds: millis / 1_000, nanos })
    }

    fn witness(kind: Kind, name: &str, state: clock_witness::State, offset: i64) -> ClockWitness {
        ClockWitness {
            kind: kind.into(),
            name: name.to_owned(),
            state: state.into(),
            offset: span(offset),
            uncertainty: span(1),
            age: span(2_000),
            failure: None,
        }
    }

    fn looked(id: &str, report: Result<ClockReport, Failure>) -> Looked {
        Looked { server: id.parse().expect("a server id"), report }
    }

    fn trusted() -> ClockReport {
        ClockReport {
            verdict: Verdict::Trusted.into(),
            offset: span(2),
            uncertainty: span(1),
            limit: span(60_000),
            fence: Some(Fence { state: State::Open.into(), ..Fence::default() }),
            witnesses: vec![witness(Kind::Peer, "s2", clock_witness::State::Contradicts, -61_003)],
            ..ClockReport::default()
        }
    }

    fn skewed() -> ClockReport {
        let failure = Failure::new(Reason::ClockFenced, "its clock is proven wrong");
        let failure =
            lockstep_proto::shared::v1::Failure { advice: "set the clock".to_owned(), ..failure.into_wire() };
        let mut away = witness(Kind::Ntp, "time.lan", clock_witness::State::Away, 0);
        (away.offset, away.uncertainty, away.age) = (None, None, None);
        away.failure = Some(Failure::new(Reason::PeerUnreachable, "nobody listens").into_wire());
        ClockReport {
            verdict: Verdict::Skewed.into(),
            offset: span(61_003),
            fence: Some(Fence {
                state: State::Fenced.into(),
                failure: Some(failure),
                age: span(12_000),
                clock_override: None,
            }),
            witnesses: vec![witness(Kind::Peer, "s1", clock_witness::State::Contradicts, 61_003), away],
            ..trusted()
        }
    }

    /// R62: every pair of a server and a witness is shown with offset and bounds, the offending server with its fence, why,
    /// and what to do; a server that does not answer says why.
    #[test]
    fn every_pair_is_shown_and_what_is_wrong() {
        let silent = Failure::new(Reason::PeerUnreachable, "timeguard of s3 cannot be reached");
        let all = [looked("s1", Ok(trusted())), looked("s2", Ok(skewed())), looked("s3", Err(silent))];
        let expected = " SERVER  CLOCK       OFFSET              LIMIT  FENCE   LAST SET BY\n \
                        s1      TRUSTED     +2.0 ms ± 1.0 ms    60 s   OPEN    -\n \
                        s2      SKEWED      +61.003 s ± 1.0 ms  60 s   FENCED  -\n \
                        s3      UNMEASURED  -                   -      -       -\n\n \
                        SERVER  WITNESS       SAYS         OFFSET              HEARD      WHY\n \
                        s1      s2            CONTRADICTS  -61.003 s ± 1.0 ms  2.0 s ago\n \
                        s2      s1            CONTRADICTS  +61.003 s ± 1.0 ms  2.0 s ago\n \
                        s2      ntp time.lan  AWAY         -                   never      nobody listens \
                        (PEER_UNREACHABLE)\n\n \
                        an offset says how far the others are ahead (+) of the clock of the server, or behind it (-)\n\n\
                        What is wrong, and what to do\n  \
                        server s2 is FENCED for 12 s: its clock is proven wrong (CLOCK_FENCED)\n      \
                        do    set the clock\n  \
                        server s3: timeguard of s3 cannot be reached (PEER_UNREACHABLE)\n      \
                        do    check that the server runs and can be reached";
        assert_eq!(page(&all), expected);
        assert_eq!(
            line(&all),
            "s1 TRUSTED OPEN; s2 SKEWED FENCED (CLOCK_FENCED); s3 is not heard (PEER_UNREACHABLE)"
        );
        assert_eq!(page(&[]), "no server has announced itself");
    }

    /// R64: after somebody set the clock it is shown by how much, and what is left to be restarted.
    #[test]
    fn what_has_to_be_restarted_is_named() {
        let mut report = skewed();
        report.services_to_restart = vec!["filesync".to_owned(), "timeguard".to_owned()];
        report.last_step =
            Some(lockstep_proto::timeguard::v1::ClockStep { offset: span(-7_200_000), age: span(3_000) });
        let text = page(&[looked("s2", Ok(report))]);
        assert!(text.contains("-2 h 0 min, 3.0 s ago"), "{text}");
        assert!(text.ends_with("left  filesync and timeguard of server s2 to be restarted"), "{text}");
    }

    /// R62: an override is told with who, why, for how long, and what would be so without it.
    #[test]
    fn an_override_says_what_it_overrules() {
        let mut report = skewed();
        let fence = report.fence.as_mut().expect("a fence");
        fence.state = State::Overruled.into();
        fence.clock_override = Some(ClockOverride {
            principal: "operator/local".to_owned(),
            justification: "checked\u{1b} by hand".to_owned(),
            time_left: span(3_600_000),
        });
        let server: ServerId = "s2".parse().expect("a server id");
        assert_eq!(
            overruled(&server, &report, false),
            "s2 originates for another 60 min 0 s, whatever is said of its clock\n      by    operator/local\n      \
             why   checked\\u{1b} by hand\n      over  its clock is proven wrong (CLOCK_FENCED)"
        );
        assert!(page(&[looked("s2", Ok(report))]).contains("  server s2 originates for another 60 min 0 s"));
        assert_eq!(overruled(&server, &trusted(), true), "s2 is judged by its clock again: OPEN");
        assert!(overruled(&server, &skewed(), true).ends_with("do    set the clock"));
    }
}
