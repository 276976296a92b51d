//! The decisions of a central token server, and the data that they are made on.
//!
//! Everything here is plain data and pure functions: an instant is an argument, and what is drawn by lot is, too. No
//! runtime, no network, no disk; [`clock`] alone reads the machine's clocks. Who drives it is the crate `wxtokend`.
//!
//! | module | what it answers |
//! |---|---|
//! | [`token::decide`] | what is done next for an account, and why |
//! | [`token::state`] | what is known of an account; whether its token may be served, and for how long |
//! | [`token::transition`] | what a call's end changes |
//! | [`token::rejection`] | what a client's report, or an operator's wish, leads to |
//! | [`token::schedule`] | when a token is refreshed, how long a failed call waits |
//! | [`ticket`] | the same of a ticket |
//! | [`fault`] | what WeChat's error codes mean, and what to do about them |
//! | [`budget`] | how many calls a day are left |
//! | [`sdk`] | how SDKs keep tokens in Redis, and how pages are signed |

pub mod account;
pub mod budget;
pub mod clock;
pub mod fault;
pub mod last_failure;
pub mod phase;
pub mod sdk;
pub mod secret;
pub mod ticket;
pub mod token;
