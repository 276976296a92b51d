//! Formats that third-party SDKs read and sign.

pub mod jssdk;
pub mod layout;
