//! An authority that vouches for servers and devices.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub pem: String,
}

/// From and to which year a certificate is good.
pub type Years = (i32, i32);

fn params(names: &[&str], (from, to): Years) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("params");
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
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

    /// A server of these names.
    pub fn server(&self, names: &[&str]) -> Arc<rustls::ServerConfig> {
        self.server_with(names, (1980, 2200), b"h2")
    }

    pub fn server_with(
        &self,
        names: &[&str],
        years: Years,
        protocol: &[u8],
    ) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, years)
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .expect("a verifier");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
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
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("a request");
        let name = identity.try_into().expect("an URI");
        request.params.subject_alt_names = vec![SanType::URI(name)];
        request.params.not_before = params(&[], years).not_before;
        request.params.not_after = params(&[], years).not_after;
        let certificate = request.signed_by(&self.issuer).expect("a certificate");
        format!("{}{}", certificate.pem(), self.pem)
    }
}
