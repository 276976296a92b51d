//! Prevention of core dumps, which would contain every AppSecret, token and key.

use rustix::io::Result;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing::warn;

/// Disables core dumps of this process, and with them debuggers of the same user.
pub(super) fn forbid() {
    if let Err(error) = try_to_forbid() {
        warn!(event = "core_dumps_possible", %error, "a core dump of this process would hold its secrets");
    }
}

/// The resource limit alone is not enough: it has no effect where the system pipes core dumps to a program.
fn try_to_forbid() -> Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn neither_a_file_nor_a_program_gets_a_core() {
        forbid();
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }
}
