//! Invisible characters, which often slip in with copied text.

/// Whether `char` is invisible by itself: blanks, control characters, byte order marks and the like.
///
/// Characters that shape their neighbours, such as the joiners of emoji, are not included.
pub(super) fn is_invisible(char: char) -> bool {
    char.is_whitespace()
        || char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}')
}

/// Whether `char` is invisible at either end of a text, where it has nothing to shape on one side. In
/// addition to [`is_invisible`] these are joiners, variation selectors and tag characters.
pub(super) fn is_invisible_at_end(char: char) -> bool {
    is_invisible(char)
        || matches!(char,
            '\u{200c}'..='\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether `text` begins or ends with a character that is invisible by itself.
pub(super) fn has_invisible_ends(text: &str) -> bool {
    text.starts_with(is_invisible) || text.ends_with(is_invisible)
}

/// Whether `text` has more than one line, or contains a control character.
pub(super) fn is_not_one_line(text: &str) -> bool {
    text.contains(|char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}'))
}

/// The name of `char`: `a line break`, `a byte order mark`. A visible character is not named.
pub(super) fn name(char: char) -> String {
    let code = u32::from(char);
    match char {
        '\n' => "a line break".to_owned(),
        '\r' => "a carriage return".to_owned(),
        '\t' => "a tab".to_owned(),
        ' ' => "a blank".to_owned(),
        '\u{feff}' => "a byte order mark".to_owned(),
        char if char.is_control() => format!("a control character (U+{code:04X})"),
        char if is_invisible_at_end(char) => format!("an invisible character (U+{code:04X})"),
        _ => "a character that is not ASCII".to_owned(),
    }
}
