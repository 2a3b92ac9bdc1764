//! `lockstep resolve`: where a device gets something, and why there.

use lockstep_proto::resolver::v1::{
    Connection, ResolveConnectionRequest, ResolveConnectionResponse, Verdict,
    resolve_connection_request::{Detail, Subject},
    verdict::State,
};

use super::{
    connect::{self, Session},
    shape,
};
use crate::{
    cli::{Format, ResolveArgs},
    out::{self, Tone},
    problem::{Problem, Result},
};

/// Asks for connection data and prints them.
pub(crate) async fn run(session: &Session, format: Format, args: ResolveArgs) -> Result<()> {
    let name = args.path.as_ref().or(args.firmware.as_ref()).cloned().unwrap_or_default();
    let what = format!("could not find out where {} gets {name}", args.device);
    let detail = if args.explain { Detail::Explained } else { Detail::Unspecified };
    let request = ResolveConnectionRequest {
        subject: args.path.map(Subject::Path).or_else(|| args.firmware.map(Subject::FirmwareId)),
        current_server_id: args.server,
        device_id: args.device,
        device_site: args.site,
        detail: detail.into(),
    };
    let mut connections = session.connections();
    let answer = connect::read(connections.resolve_connection(request)).await;
    let answer = answer.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    match format {
        Format::Json => out::json(&shape::Resolved::of(&answer)),
        Format::Text => out::page(&page(&answer)),
    }
}

/// The password is for devices and programs: it is in the document, never on a screen.
fn page(answer: &ResolveConnectionResponse) -> String {
    let Connection { uri, server_id, user, password, .. } = answer.connection.clone().unwrap_or_default();
    let mut text = vec![out::painted(Tone::Head, &out::escaped(&uri))];
    text.push(match server_id.as_str() {
        "" => "  as it was entered; no server is chosen".to_owned(),
        server => format!("  server {server}"),
    });
    if !user.is_empty() || !password.is_empty() {
        let with = if password.is_empty() { "without a password" } else { "with a password" };
        text.push(format!("  user {}, {with}", out::escaped(&user)));
    }
    for verdict in &answer.verdicts {
        text.push(String::new());
        text.extend(verdict_lines(verdict));
    }
    text.join("\n")
}

fn verdict_lines(verdict: &Verdict) -> Vec<String> {
    let tone = match verdict.state() {
        State::Chosen => Tone::Good,
        State::Excluded => Tone::Bad,
        _ => Tone::Wait,
    };
    let mut head = vec![verdict.server_id.clone(), out::painted(tone, &shape::verdict_state(verdict))];
    head.extend(verdict.failure.as_ref().map(|failure| failure.reason.clone()));
    if verdict.rank_index > 0 {
        head.push(format!("({} in the order)", verdict.rank_index));
    }
    let advice = verdict.failure.as_ref().map_or("", |failure| failure.advice.as_str());
    let mut lines = vec![head.join("  ")];
    for (label, text) in [("why", verdict.message.as_str()), ("do", advice)] {
        if !text.is_empty() {
            lines.push(format!("  {label:<5} {}", out::escaped(text)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use lockstep_proto::shared::v1::Failure;

    use super::*;

    #[test]
    fn an_answer_says_where_and_why_and_keeps_the_password() {
        let connection = Connection {
            uri: "https://cdn.test:443/ums_filetransfer/fw".into(),
            server_id: "s2".into(),
            user: "device".into(),
            password: "canary".into(),
            ..Connection::default()
        };
        let chosen = Verdict {
            server_id: "s2".into(),
            state: State::Chosen.into(),
            message: "it holds every byte".into(),
            failure: None,
            rank_index: 1,
        };
        let failure =
            Failure { reason: "DISK_FULL".into(), advice: "free some".into(), ..Failure::default() };
        let excluded = Verdict {
            server_id: "s1".into(),
            state: State::Excluded.into(),
            message: "no room".into(),
            failure: Some(failure),
            rank_index: 0,
        };
        let answer = ResolveConnectionResponse {
            connection: Some(connection),
            verdicts: vec![chosen, excluded],
            position: None,
        };
        assert_eq!(
            page(&answer),
            "https://cdn.test:443/ums_filetransfer/fw\n  server s2\n  user device, with a password\n\n\
             s2  CHOSEN  (1 in the order)\n  why   it holds every byte\n\n\
             s1  EXCLUDED  DISK_FULL\n  why   no room\n  do    free some"
        );
    }
}
