//! `wxtokend check`.

use std::fmt::Write as _;

use super::args::Check;
use super::failure::Failure;
use super::output::{self, counted};
use super::source::Source;
use crate::config::Config;

pub(super) fn check(args: Check) -> Result<(), Failure> {
    let source = Source::File(args.config);
    let config = source.load()?;
    if args.strict && !config.warnings.is_empty() {
        return Err(Failure::Usage(as_errors(&source, &config)));
    }
    output::print(&report(&source, &config))
}

/// The settings, the warnings, and the result in one line.
fn report(source: &Source, config: &Config) -> String {
    let mut text = config.summary();
    for warning in &config.warnings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "warning: {source}: {warning}");
    }
    let accounts = counted(config.accounts.len(), "account");
    let clients = counted(config.api.clients.len(), "client");
    let warnings = counted(config.warnings.len(), "warning");
    text + &format!("{source} is valid: {accounts}, {clients}, {warnings}\n")
}

fn as_errors(source: &Source, config: &Config) -> String {
    let mut text = format!("{source} has {}", counted(config.warnings.len(), "warning"));
    for warning in &config.warnings {
        let _ = write!(text, "\n{source}: {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SECRETS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];

    #[test]
    fn the_warnings_follow_the_settings_and_the_last_line_counts_them() {
        let text = format!(
            "api:\n  clients:\n    - {{ name: crm, key: {}, accounts: [wx0123456789abcdef] }}\n\
             accounts:\n  - {{ appid: wx0123456789abcdef, secret: {} }}\n  - {{ appid: wxfedcba9876543210, secret: {} }}\n\
             store: {{ path: /w.redb }}\n",
            "k".repeat(16),
            SECRETS[0],
            SECRETS[1]
        );
        let config = Config::parse(&text, Path::new("accounts.yaml"), |_| None).unwrap();
        let source = Source::File("accounts.yaml".into());
        let report = report(&source, &config);
        let last: Vec<_> = report.lines().rev().take(3).collect();
        assert_eq!(
            last,
            [
                "accounts.yaml is valid: 2 accounts, 1 client, 2 warnings",
                "warning: accounts.yaml: accounts[1]: no client may read it: none has it among its accounts (line 6, column 5)",
                "warning: accounts.yaml: api.clients: none is allowed admin: nobody can order a refresh (line 2, column 3)",
            ]
        );
        assert!(report.starts_with("api:\n"), "{report}");
        let report = as_errors(&source, &config);
        assert!(
            report.starts_with("accounts.yaml has 2 warnings\naccounts.yaml: api.clients: none"),
            "{report}"
        );
    }
}
