//! TLS towards devices.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::verifier::Verifier;
use crate::keys::Fleet;

/// TLS 1.3, the fleet's server certificate, and clients that have a certificate of its device authority or none at all.
pub(super) fn config(fleet: &Arc<Fleet>) -> Result<Arc<ServerConfig>, rustls::Error> {
    // All TLS 1.3 cipher suites of ring. SHA-256 comes first, because processors have instructions for it but not for
    // SHA-384, which took a twelfth of a full handshake. The server's order wins over the client's.
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        ..ring::default_provider()
    });
    let mut authorities = RootCertStore::empty();
    authorities.add(fleet.ca_certificate())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Verifier {
            webpki: verifier,
            fleet: Arc::clone(fleet),
        }))
        .with_cert_resolver(Arc::new(Current(Arc::clone(fleet))));
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions are resumed with tickets that the client keeps, so the server stores nothing for devices that are away. The
    // certificate in a ticket was verified when it was issued; `identity` checks again whether it is still valid.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The current server certificate: a renewed one is used from the next handshake on.
#[derive(Debug)]
struct Current(Arc<Fleet>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.server_certificate())
    }
}
