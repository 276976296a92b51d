//! Exchanges a part of a text.

use crate::run::Outcome;

/// `text` with what stands between the first line that begins with `begin` and the next `end` exchanged.
pub(super) fn exchange(text: &str, begin: &str, end: &str, new: &str) -> Outcome<String> {
    let start = text.find(begin).ok_or_else(|| format!("there is no {begin:?}"))? + begin.len();
    let length = text[start..].find(end).ok_or_else(|| format!("there is no {end:?} after {begin:?}"))?;
    Ok(format!("{}{new}{}", &text[..start], &text[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_exchanged_and_one_that_is_not_there_is_an_error() {
        assert_eq!(exchange("a [b] c", "[", "]", "x").unwrap(), "a [x] c");
        assert_eq!(exchange("a b", "[", "]", "x").unwrap_err().to_string(), "there is no \"[\"");
    }
}
