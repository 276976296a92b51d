//! What is allowed in a configuration and probably not meant, as log lines.

use tracing::warn;

use super::source::Source;
use crate::config::Problem;

/// So many are logged one by one; a thousand accounts can have a thousand.
const MOST: usize = 20;

/// Logs each of `warnings` that is not among `told`.
pub(super) fn log(source: &Source, warnings: &[Problem], told: &[Problem]) {
    let (shown, more) = news(warnings, told);
    for warning in shown {
        warn!(event = "config_warning", config = %source, "{warning}");
    }
    if more > 0 {
        warn!(event = "config_warning", config = %source, "and {more} more, which `wxtokend check` prints");
    }
}

/// The first of those that are new, and how many more there are. A line that has moved makes none new.
fn news<'a>(warnings: &'a [Problem], told: &[Problem]) -> (Vec<&'a Problem>, usize) {
    let told: std::collections::HashSet<_> = told.iter().map(|known| (&known.key, &known.what)).collect();
    let mut new: Vec<_> =
        warnings.iter().filter(|warning| !told.contains(&(&warning.key, &warning.what))).collect();
    let more = new.len().saturating_sub(MOST);
    new.truncate(MOST);
    (new, more)
}

/// Nothing tells us of a proxy that passes requests on as they are.
pub(super) fn no_clients() {
    warn!(
        event = "no_clients",
        "api.clients is empty: every program on this machine may read every token, and through a proxy everybody \
         who reaches that; configure api.clients before you put a proxy in front"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Position;

    fn warning(index: usize, line: usize) -> Problem {
        let position = Some(Position { line, column: 1 });
        Problem { position, key: format!("accounts[{index}]"), what: "is odd".to_owned() }
    }

    #[test]
    fn a_warning_is_logged_once_and_at_most_20_are_one_by_one() {
        let all: Vec<_> = (0..30).map(|index| warning(index, index)).collect();
        let (shown, more) = news(&all, &[]);
        assert_eq!((shown.len(), more), (20, 10));
        let moved: Vec<_> = (0..31).map(|index| warning(index, index + 5)).collect();
        let (shown, more) = news(&moved, &all);
        assert_eq!((shown, more), (vec![&moved[30]], 0));
    }
}
