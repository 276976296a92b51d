//! Negotiation of gzip by `Accept-Encoding` (RFC 9110, section 12.5.3).

use axum::http::{HeaderMap, header};

/// Whether the client accepts gzip and does not prefer an uncompressed answer.
pub(super) fn asks_for_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for list in headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok()) {
        for (coding, weight) in list.split(',').filter_map(weighted) {
            let known = match coding.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => &mut gzip,
                "identity" => &mut identity,
                "*" => &mut any,
                _ => continue,
            };
            *known = Some(weight);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// Parses `gzip;q=0.5`, or a coding without a weight, which is then 1. `None` for anything else.
fn weighted(text: &str) -> Option<(&str, f32)> {
    let (coding, parameter) = text.split_once(';').unwrap_or((text, "q=1"));
    let (name, weight) = parameter.split_once('=')?;
    let digits = weight.trim_end();
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let weight = digits.parse().ok().filter(|weight| is_plain && (0.0..=1.0).contains(weight))?;
    name.trim_start().eq_ignore_ascii_case("q").then_some((coding.trim(), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: &[&str]) -> HeaderMap {
        lists.iter().map(|list| (header::ACCEPT_ENCODING, list.parse().unwrap())).collect()
    }

    #[test]
    fn gzip_is_asked_for_by_name_or_by_a_star_and_not_with_a_weight_of_0() {
        for (lists, asked) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["deflate, br"], false),
            (&["deflate, gzip;q=0.5"], true),
            (&["deflate", "gzip"], true),
            (&["gzip ; q=0.001"], true),
            (&["gzip; Q=1.000 "], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["*"], true),
            (&["*;q=0.1"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["gzip, *;q=0"], true),
            (&["*;q=0, gzip"], true),
            (&["identity"], false),
            (&["identity, gzip"], true),
            (&["identity;q=0.5, gzip;q=0.4"], false),
            (&["identity;q=0.5, *"], true),
            (&["identity;q=0"], false),
            (&["gzip;q=2"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q=inf"], false),
            (&["gzip;q="], false),
            (&["gzip;q"], false),
            (&["gzip;level=1"], false),
            (&["gzipped"], false),
            (&[" ,, gzip"], true),
        ] {
            assert_eq!(asks_for_gzip(&of(lists)), asked, "{lists:?}");
        }
    }
}
