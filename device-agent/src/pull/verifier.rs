//! Verifies the server's certificate: chain and name with webpki, validity as far as this machine can know the time.
//!
//! The server is identified by the fleet's own CA, from the join file, and by its name. The validity of its certificate is
//! enforced only as far as the clock is believed: a wrong time must not lock the device out of its fleet.

use std::fmt;
use std::sync::Arc;

use flotta_bundle::code::{self, Problem};
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::VerifierBuilderError;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::{self, Clock};

/// Verifies the server's certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    clock: Clock,
}

/// How a certificate is outside its validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutOfTime {
    Ended(Option<Timestamp>),
    Begins(Option<Timestamp>),
}

impl OutOfTime {
    pub(super) fn of(error: &CertificateError) -> Option<Self> {
        let at = |time: &UnixTime| {
            let seconds = i64::try_from(time.as_secs()).ok()?;
            Timestamp::from_second(seconds).ok()
        };
        match error {
            CertificateError::Expired => Some(Self::Ended(None)),
            CertificateError::ExpiredContext { not_after, .. } => Some(Self::Ended(at(not_after))),
            CertificateError::NotValidYet => Some(Self::Begins(None)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Some(Self::Begins(at(not_before)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Some(time)) => write!(f, "ended at {time}"),
            Self::Begins(Some(time)) => write!(f, "begins at {time}"),
            Self::Ended(None) => f.write_str("has ended"),
            Self::Begins(None) => f.write_str("has not begun"),
        }
    }
}

impl Verifier {
    pub(super) fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        clock: &Clock,
    ) -> Result<Self, VerifierBuilderError> {
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
        Ok(Self {
            webpki: webpki.build()?,
            clock: clock.clone(),
        })
    }

    /// Verifies the chain that a server presented, its own certificate first, at the current time.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), Error> {
        let (end_entity, intermediates) =
            chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        // the handshake verified the signature, so only the time is checked again
        let now = clock::unix(self.clock.now());
        self.verify_server_cert(end_entity, intermediates, name, &[], now)?;
        Ok(())
    }

    /// The problem to report for a certificate that is accepted although it is outside its validity; none when it is refused. One
    /// that is not valid yet was still issued by the CA, whose clock was ahead. One that has expired is refused where the clock
    /// is believed, because whoever has its key may no longer be the server.
    fn excuse(&self, name: &ServerName<'_>, out: OutOfTime) -> Option<Problem> {
        let name = name.to_str();
        match (self.clock.is_believed(), out) {
            (true, OutOfTime::Ended(_)) => None,
            (true, OutOfTime::Begins(_)) => Some(Problem::new(
                code::TIME_AHEAD,
                format!("the certificate of {name} {out}, which is ahead of this clock"),
            )),
            (false, _) => Some(Problem::new(
                code::CLOCK_UNSURE,
                format!("the certificate of {name} {out}, which does not fit this clock"),
            )),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |now: Timestamp| {
            let now = clock::unix(now);
            self.webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )
        };
        let mut first = None;
        for now in self.clock.candidates() {
            let error = match verify(now) {
                Ok(verified) => {
                    // a clock that the network does not set may be behind, which the other candidate accounts for
                    self.clock.set_doubt(None);
                    return Ok(verified);
                }
                Err(error) => error,
            };
            let out = match &error {
                Error::InvalidCertificate(why) => OutOfTime::of(why),
                _ => None,
            };
            let Some(out) = out else { return Err(error) };
            first.get_or_insert((error, out));
        }
        let Some((error, out)) = first else {
            return Err(Error::FailedToGetCurrentTime);
        };
        let Some(excuse) = self.excuse(server_name, out) else {
            return Err(error);
        };
        // only its validity may be wrong: at a time within it, everything else must verify
        let verified = beginning(end_entity)
            .and_then(|begins| verify(begins).ok())
            .ok_or(error)?;
        self.clock.set_doubt(Some(excuse));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// When a certificate becomes valid.
fn beginning(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_before.timestamp()).ok()
}
