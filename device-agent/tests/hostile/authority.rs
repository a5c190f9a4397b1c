//! A CA for servers and devices.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use time::OffsetDateTime;

/// A clock that stands still.
#[derive(Debug)]
struct Stopped(Timestamp);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub pem: String,
}

/// The first and last year of a certificate's validity.
pub type Years = (i32, i32);

fn params(names: &[&str], (from, to): Years) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("params");
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
}

/// The validity that the real server gives: from an hour before a time to so many days after it.
fn life(made: Timestamp, days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
    let made = made.as_second();
    (at(made - 3600), at(made + days * 86_400))
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(&[], (1980, 2200));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("an authority");
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The TLS configuration of a server with these names.
    pub fn server(&self, names: &[&str]) -> Arc<rustls::ServerConfig> {
        self.server_with(names, (1980, 2200), b"h2")
    }

    pub fn server_with(
        &self,
        names: &[&str],
        years: Years,
        protocol: &[u8],
    ) -> Arc<rustls::ServerConfig> {
        self.server_of(&params(names, years), protocol, DefaultTimeProvider)
    }

    /// A server whose certificate was made when its clock said `made`, while its clock says `now`.
    pub fn server_at(
        &self,
        names: &[&str],
        made: Timestamp,
        now: Timestamp,
    ) -> Arc<rustls::ServerConfig> {
        let mut params = params(names, (1980, 2200));
        (params.not_before, params.not_after) = life(made, 365);
        self.server_of(&params, b"h2", Stopped(now))
    }

    fn server_of(
        &self,
        params: &CertificateParams,
        protocol: &[u8],
        clock: impl TimeProvider + 'static,
    ) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .expect("a verifier");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a pair");
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// A device's certificate for its request.
    pub fn device(&self, csr: &str, identity: &str) -> String {
        self.device_with(csr, identity, (2000, 2190))
    }

    pub fn device_with(&self, csr: &str, identity: &str, years: Years) -> String {
        let params = params(&[], years);
        self.device_of(csr, identity, (params.not_before, params.not_after))
    }

    /// The certificate that a server makes when its clock says `now`.
    pub fn device_at(&self, csr: &str, identity: &str, now: Timestamp) -> String {
        self.device_of(csr, identity, life(now, 90))
    }

    fn device_of(
        &self,
        csr: &str,
        identity: &str,
        life: (OffsetDateTime, OffsetDateTime),
    ) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("a request");
        let name = identity.try_into().expect("an URI");
        request.params.subject_alt_names = vec![SanType::URI(name)];
        (request.params.not_before, request.params.not_after) = life;
        let certificate = request.signed_by(&self.issuer).expect("a certificate");
        format!("{}{}", certificate.pem(), self.pem)
    }
}
