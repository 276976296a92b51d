//! Tables with aligned columns, Chinese names included.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

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
    colour: Option<Colour>,
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

    pub(super) fn push(&mut self, colour: Option<Colour>, cells: [String; N], notes: &[String]) {
        let notes = notes.iter().map(|note| printable(note)).collect();
        self.rows.push(TableRow { cells: cells.map(|cell| printable(&cell)), colour, notes });
    }

    pub(super) fn render(&self, coloured: bool) -> String {
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().map(|row| row.cells[column].width());
            cells.max().unwrap_or(0).max(self.heads[column].name().len())
        });
        let mut text = String::new();
        let heads = self.heads.map(|head| head.name().to_owned());
        self.line(&mut text, &heads, &widths, None);
        for row in &self.rows {
            self.line(&mut text, &row.cells, &widths, row.colour.filter(|_| coloured));
            for note in &row.notes {
                let _ = writeln!(text, "    {note}");
            }
        }
        text
    }

    /// Writes one line; `colour` is that of its first cell.
    fn line(&self, text: &mut String, cells: &[String; N], widths: &[usize; N], colour: Option<Colour>) {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.width());
            let cell = match colour.filter(|_| column == 0) {
                Some(colour) => format!("\x1b[{}m{cell}\x1b[0m", colour as u8),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<3> {
        let mut table =
            Table::new([ColumnHead::Left("STATE"), ColumnHead::Left("NAME"), ColumnHead::Right("N")]);
        let cells = |cells: [&str; 3]| cells.map(str::to_owned);
        table.push(Some(Colour::Red), cells(["parked", "花店", "1"]), &["why".to_owned()]);
        table.push(None, cells(["fresh", "a\x1b[2Jb", "10"]), &[]);
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
