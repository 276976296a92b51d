//! `wxtokend check`.

use super::args::Check;
use super::failure::Failure;
use super::output;
use super::source::Source;

pub(super) fn check(args: Check) -> Result<(), Failure> {
    let config = Source::File(args.config).load()?;
    output::print(&config.summary())
}
