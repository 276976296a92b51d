//! Logs warnings of the configuration: what is allowed but probably not intended.

use tracing::warn;

use super::source::Source;
use crate::config::Problem;

/// How many are logged individually; a thousand accounts can have a thousand warnings.
const MAX_LOGGED: usize = 20;

/// Logs each of `warnings` that is not in `logged`.
pub(super) fn log(source: &Source, warnings: &[Problem], logged: &[Problem]) {
    let (shown, more) = new_warnings(warnings, logged);
    for warning in shown {
        warn!(event = "config_warning", config = %source, "{warning}");
    }
    if more > 0 {
        warn!(event = "config_warning", config = %source, "and {more} more, which `wxtokend check` prints");
    }
}

/// The first new warnings, and how many more there are. A warning whose line has moved is not new.
fn new_warnings<'a>(warnings: &'a [Problem], logged: &[Problem]) -> (Vec<&'a Problem>, usize) {
    let logged: std::collections::HashSet<_> = logged.iter().map(|known| (&known.key, &known.what)).collect();
    let mut new: Vec<_> =
        warnings.iter().filter(|warning| !logged.contains(&(&warning.key, &warning.what))).collect();
    let more = new.len().saturating_sub(MAX_LOGGED);
    new.truncate(MAX_LOGGED);
    (new, more)
}

/// Warns that no key is needed. A proxy that forwards requests unchanged cannot be detected.
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
        let (shown, more) = new_warnings(&all, &[]);
        assert_eq!((shown.len(), more), (20, 10));
        let moved: Vec<_> = (0..31).map(|index| warning(index, index + 5)).collect();
        let (shown, more) = new_warnings(&moved, &all);
        assert_eq!((shown, more), (vec![&moved[30]], 0));
    }
}
