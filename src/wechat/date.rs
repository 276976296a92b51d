//! Reads dates in response headers.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Reads a date in any of the three forms that RFC 9110, section 5.6.7, requires a recipient to accept.
///
/// Variants of the first form that mail allows, such as `+0000` for `GMT`, are read too. A two-digit year is
/// one from 1970 to 2069.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    match rfc2822::parse(text) {
        Ok(date) => Some(date.timestamp()),
        Err(_) => httpdate::parse_http_date(text).ok()?.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_each_of_https_forms() {
        for (text, date) in [
            ("Mon, 30 Nov 2026 14:01:00 GMT", Some("2026-11-30T14:01:00Z")),
            ("Mon, 30 Nov 2026 14:01:00 +0000", Some("2026-11-30T14:01:00Z")),
            ("Monday, 30-Nov-26 14:01:00 GMT", Some("2026-11-30T14:01:00Z")),
            (" Mon Nov 30 14:01:00 2026 ", Some("2026-11-30T14:01:00Z")),
            ("Tue Dec  1 14:01:00 2026", Some("2026-12-01T14:01:00Z")),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some("1994-11-06T08:49:37Z")),
            ("Monday, 31-Nov-26 14:01:00 GMT", None),
            ("Monday, 30-Nov-26", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(read(text), date.map(|date| date.parse().unwrap()), "{text:?}");
        }
    }
}
