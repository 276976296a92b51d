//! Durations in human-readable form: `500ms`, `5s`, `2m`, `1h`, `7d`.

use std::time::Duration;

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest accepted duration, 100 years: far more than is ever needed, and safe to add to any clock.
const MAX_MS: u64 = 36_500 * 86_400_000;
pub(super) const MAX: Duration = Duration::from_millis(MAX_MS);

/// A string that is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a positive whole number with its unit: 500ms, 5s, 2m, 1h, 7d (at most 36500d)")]
pub struct InvalidDuration;

/// Parses a positive duration: a whole number directly followed by `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// [`InvalidDuration`] when it has another form, is zero or is longer than 100 years.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidDuration)?;
    let number: u64 = number.parse().map_err(|_| InvalidDuration)?;
    match number.checked_mul(*ms) {
        Some(ms @ 1..=MAX_MS) => Ok(Duration::from_millis(ms)),
        _ => Err(InvalidDuration),
    }
}

/// Formats a duration in the longest unit that needs no fraction. For whole milliseconds [`parse`] gives the
/// same duration back.
#[must_use]
pub fn show(duration: Duration) -> String {
    let whole_ms = duration.subsec_nanos().is_multiple_of(1_000_000);
    match u64::try_from(duration.as_millis()) {
        Ok(all) if all > 0 && whole_ms => {
            let fits = |(_, ms): &&(&str, u64)| all.is_multiple_of(*ms);
            UNITS.iter().find(fits).map_or_else(String::new, |(name, ms)| format!("{}{name}", all / ms))
        }
        _ => format!("{duration:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read_and_written() {
        for (text, ms) in
            [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
        assert_eq!(parse("90s").map(show).as_deref(), Ok("90s"));
        assert_eq!(parse("1500ms").map(show).as_deref(), Ok("1500ms"));
        assert_eq!(parse("120s").map(show).as_deref(), Ok("2m"));
    }

    #[test]
    fn anything_else_is_no_duration() {
        for bad in [
            "",
            "5",
            "s",
            "0s",
            "-5s",
            "+5s",
            "5 s",
            " 5s",
            "5s ",
            "1.5s",
            "5S",
            "5sec",
            "1h30m",
            "36501d",
            "99999999999999999999s",
            "18446744073709551615d",
            "٣s",
        ] {
            assert_eq!(parse(bad), Err(InvalidDuration), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 1..=MAX_MS) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
