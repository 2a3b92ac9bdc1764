//! Differences between clocks for people.

use std::time::Duration;

use super::duration;

const MINUTE_MS: u128 = 60_000;
const HOUR_MS: u128 = 60 * MINUTE_MS;
const DAY_MS: u128 = 24 * HOUR_MS;

/// How far one clock is from another, in nanoseconds, with how far the truth may be from that, where it is known:
/// `+61.003 s ± 0.4 ms`.
pub(crate) fn offset(nanos: i128, uncertainty: Option<Duration>) -> String {
    let bounds = uncertainty.map(|bounds| format!(" ± {}", length(bounds.as_nanos())));
    format!("{}{}{}", sign(nanos), length(nanos.unsigned_abs()), bounds.unwrap_or_default())
}

/// The same in few columns, and in one unit only: `+61 s`.
pub(crate) fn offset_short(nanos: i128) -> String {
    let (sign, millis) = (sign(nanos), rounded(nanos.unsigned_abs(), 1_000_000));
    let whole = |unit: u128| rounded(millis, unit);
    match millis {
        0..1_000 => format!("{sign}{millis} ms"),
        1_000..10_000 => format!("{sign}{:.1} s", millis as f64 / 1e3),
        10_000..120_000 => format!("{sign}{} s", whole(1_000)),
        120_000..7_200_000 => format!("{sign}{} min", whole(MINUTE_MS)),
        7_200_000..172_800_000 => format!("{sign}{} h", whole(HOUR_MS)),
        _ => format!("{sign}{} d", whole(DAY_MS)),
    }
}

fn sign(nanos: i128) -> char {
    if nanos < 0 { '-' } else { '+' }
}

/// Parts of a millisecond below a second, milliseconds below two minutes, and whole seconds or less above.
fn length(nanos: u128) -> String {
    let (tenths, millis) = (rounded(nanos, 100_000), rounded(nanos, 1_000_000));
    match millis {
        _ if tenths < 10_000 => format!("{}.{} ms", tenths / 10, tenths % 10),
        0..120_000 => format!("{}.{:03} s", millis / 1_000, millis % 1_000),
        120_000..DAY_MS => duration(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))),
        _ => format!("{} d {} h", millis / DAY_MS, millis % DAY_MS / HOUR_MS),
    }
}

/// The nearest number of whole units.
fn rounded(value: u128, unit: u128) -> u128 {
    value.saturating_add(unit / 2) / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i128 = 1_000_000;
    const SECOND: i128 = 1_000 * MS;

    /// R62: an offset is told with its bounds, as exactly as its size deserves.
    #[test]
    fn offsets_read_well() {
        for (nanos, bounds_us, text) in [
            (61_003 * MS, 400, "+61.003 s ± 0.4 ms"),
            (1_200_000, 300, "+1.2 ms ± 0.3 ms"),
            (-1_200_000, 61_000_000, "-1.2 ms ± 61.000 s"),
            (0, 0, "+0.0 ms ± 0.0 ms"),
            (999_960_000, 0, "+1.000 s ± 0.0 ms"),
            (-119 * SECOND, 1_000, "-119.000 s ± 1.0 ms"),
            (-125 * SECOND, 1_000, "-2 min 5 s ± 1.0 ms"),
            (7_260 * SECOND, 1_000, "+2 h 1 min ± 1.0 ms"),
            (-26 * 3_600 * SECOND, 1_000, "-1 d 2 h ± 1.0 ms"),
            (-400 * 86_400 * SECOND, 1_000, "-400 d 0 h ± 1.0 ms"),
        ] {
            assert_eq!(offset(nanos, Some(Duration::from_micros(bounds_us))), text);
        }
        assert_eq!(offset(-61 * SECOND, None), "-61.000 s");
        // What no clock shows does not break it.
        let huge = offset(i128::from(i64::MIN) * SECOND, None);
        assert!(huge.starts_with('-') && huge.ends_with(" h"), "{huge}");
    }

    #[test]
    fn offsets_in_a_column_have_one_unit() {
        for (nanos, text) in [
            (400_000, "+0 ms"),
            (-12 * MS, "-12 ms"),
            (1_250 * MS, "+1.2 s"),
            (61_003 * MS, "+61 s"),
            (-125 * SECOND, "-2 min"),
            (26 * 3_600 * SECOND, "+26 h"),
            (-400 * 86_400 * SECOND, "-400 d"),
        ] {
            assert_eq!(offset_short(nanos), text);
        }
    }
}
