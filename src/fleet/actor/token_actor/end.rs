//! How an account's turn ends when a call was due.

use wxtokend_core::fault::Fault;

use crate::fleet::cells::call_state::CallEnd;

/// What became of the call that was due.
pub(super) enum TokenCallEnd {
    /// It was in flight, and has ended.
    Called(CallEnd),
    /// It was not made: the hosts are down, or the budget is spent.
    Refused(Fault),
}
