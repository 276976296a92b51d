//! How a turn of the cycle ends that was to be a call.

use wxtokend_core::fault::Fault;

use crate::fleet::cells::call_state::CallEnd;

/// EventKind has become of the call that was due.
pub(super) enum TokenCallEnd {
    /// It was in flight, and has ended.
    Called(CallEnd),
    /// It was not made: the hosts are down, the budget is spent.
    Refused(Fault),
}
