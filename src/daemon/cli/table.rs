//! Tables with aligned columns, Chinese names included.

use std::fmt::Write as _;

/// Rows of `N` cells; the last column is not padded.
pub(super) struct Table<const N: usize> {
    heads: [ColumnHead; N],
    rows: Vec<TableRow<N>>,
}

/// The title of a column, and its alignment.
#[derive(Clone, Copy)]
pub(super) enum ColumnHead {
    Left(&'static str),
    Right(&'static str),
}

struct TableRow<const N: usize> {
    cells: [String; N],
    /// The colour of the first cell.
    colour: Colour,
    /// Lines printed below the row.
    notes: Vec<String>,
}

/// An SGR code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(heads: [ColumnHead; N]) -> Self {
        Self { heads, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, colour: Colour, cells: [String; N], notes: &[String]) {
        let notes = notes.iter().map(|note| printable(note)).collect();
        self.rows.push(TableRow { cells: cells.map(|cell| printable(&cell)), colour, notes });
    }

    pub(super) fn render(&self, coloured: bool) -> String {
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().map(|row| width(&row.cells[column]));
            cells.max().unwrap_or(0).max(self.heads[column].name().len())
        });
        let mut text = String::new();
        let heads = self.heads.map(|head| head.name().to_owned());
        self.line(&mut text, &heads, &widths, None);
        for row in &self.rows {
            self.line(&mut text, &row.cells, &widths, coloured.then_some(row.colour as u8));
            for note in &row.notes {
                let _ = writeln!(text, "    {note}");
            }
        }
        text
    }

    /// Writes one line; `sgr` colours its first cell.
    fn line(&self, text: &mut String, cells: &[String; N], widths: &[usize; N], sgr: Option<u8>) {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[column] - width(cell));
            let cell = match sgr.filter(|_| column == 0) {
                Some(sgr) => format!("\x1b[{sgr}m{cell}\x1b[0m"),
                None => cell.clone(),
            };
            let gap = if column == 0 { "" } else { "  " };
            let _ = match self.heads[column] {
                ColumnHead::Left(_) => write!(line, "{gap}{cell}{pad}"),
                ColumnHead::Right(_) => write!(line, "{gap}{pad}{cell}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

impl ColumnHead {
    fn name(self) -> &'static str {
        match self {
            Self::Left(name) | Self::Right(name) => name,
        }
    }
}

/// Replaces control characters, which could move the cursor: names come from a file, and messages from the
/// network.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// The width of `text` in columns on most terminals, where East Asian wide characters take two.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(char: char) -> usize {
    match u32::from(char) {
        // Combining marks, joiners and variation selectors.
        0x300..=0x36f | 0x200b..=0x200f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f => 0,
        // Hangul; CJK from radicals to Yi; Hangul syllables; compatibility and full-width forms; emoji;
        // further CJK.
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        for (text, columns) in
            [("", 0), ("Tea House", 9), ("花店", 4), ("Tea 茶馆", 8), ("ｗｘ（）", 8), ("e\u{301}", 1)]
        {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    fn table() -> Table<3> {
        let mut table =
            Table::new([ColumnHead::Left("STATE"), ColumnHead::Left("NAME"), ColumnHead::Right("N")]);
        let cells = |cells: [&str; 3]| cells.map(str::to_owned);
        table.push(Colour::Red, cells(["parked", "花店", "1"]), &["why".to_owned()]);
        table.push(Colour::Green, cells(["fresh", "a\x1b[2Jb", "10"]), &[]);
        table
    }

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let expected = "\
STATE   NAME     N
parked  花店     1
    why
fresh   a\u{fffd}[2Jb  10
";
        assert_eq!(table().render(false), expected);
    }

    #[test]
    fn colour_changes_no_width() {
        let coloured = table().render(true);
        assert!(coloured.contains("\x1b[31mparked\x1b[0m  花店"), "{coloured}");
        let plain =
            ["31", "32", "0"].iter().fold(coloured, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
        assert_eq!(plain, table().render(false));
    }
}
