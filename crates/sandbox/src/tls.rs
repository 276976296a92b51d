//! HTTPS with a CA of its own, which is made at the start and whose key is never written anywhere.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio_rustls::TlsAcceptor;

/// The names that it is always good for: WeChat's, and this machine's.
const NAMES: [&str; 4] = ["api.weixin.qq.com", "localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// For how long it is good. Some clients accept no longer life.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate, and the CA that issued it.
#[derive(Clone)]
pub struct Tls {
    ca_pem: String,
    acceptor: TlsAcceptor,
}

/// Prints no key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Makes a CA and a certificate for `api.weixin.qq.com`, `localhost`, `127.0.0.1`, `::1` and `names`, which
    /// are names of hosts or IP addresses. Both are good from the day before the Unix time `wall_s`, for a year.
    ///
    /// # Errors
    /// Returns what is wrong with `names`, or why no key can be made.
    pub fn new(names: &[String], wall_s: u64) -> io::Result<Self> {
        let now = i64::try_from(wall_s).map_err(io::Error::other)?;
        let now = Timestamp::from_second(now).map_err(io::Error::other)?;
        let ca = CertifiedIssuer::self_signed(ca(now)?, key()?).map_err(io::Error::other)?;
        let key = key()?;
        let certificate = server(names, now)?.signed_by(&key, &ca).map_err(io::Error::other)?;
        let key = key.serialize_der().try_into().map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate.into()], key));
        Ok(Self { ca_pem: ca.pem(), acceptor: Arc::new(config.map_err(io::Error::other)?).into() })
    }

    /// The CA's certificate in PEM, which a client must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn key() -> io::Result<KeyPair> {
    KeyPair::generate().map_err(io::Error::other)
}

fn ca(now: Timestamp) -> io::Result<CertificateParams> {
    let mut params = params("wxtokend sandbox, not WeChat", Vec::new(), now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn server(names: &[String], now: Timestamp) -> io::Result<CertificateParams> {
    let names = NAMES.into_iter().map(str::to_owned).chain(names.iter().cloned());
    let mut params = params("wxtokend sandbox", names.collect(), now)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(subject: &str, names: Vec<String>, now: Timestamp) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, subject);
    let day = |at: Result<Timestamp, jiff::Error>| {
        let date = Offset::UTC.to_datetime(at.map_err(io::Error::other)?);
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        Ok::<_, io::Error>(rcgen::date_time_ymd(date.year().into(), month, day))
    };
    params.not_before = day(now.checked_sub(DAY))?;
    params.not_after = day(now.checked_add(LIFETIME))?;
    Ok(params)
}
