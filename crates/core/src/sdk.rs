//! What the SDKs of others read and sign.

pub mod jssdk;
pub mod layout;
