//! Verifies the proofs in a request to join, before any lookup.

use data_encoding::BASE64;
use flotta_bundle::DeviceName;
use flotta_bundle::wire::{EnrolmentRequest, Hardware, sealing_statement};
use jiff::Timestamp;

use super::{Certified, EnrolError};
use crate::keys::{Csr, DeviceKey};
use crate::store::{JoinRequest, RequestState};
use crate::text::plain;

/// Longest text of a stranger that is shown, in characters.
const MAX_TEXT: usize = 128;

/// A request with valid proofs: the sender has the identity key, which has signed the sealing key.
pub(super) struct Proven {
    pub(super) device: DeviceName,
    pub(super) key: DeviceKey,
    pub(super) sealing_key: String,
    pub(super) hardware: Hardware,
    /// Whether the client has a certificate by this fleet's CA for this name and key.
    pub(super) vouched: bool,
}

impl Proven {
    /// Verifies a request; `certified` has the name and key of the client's certificate.
    pub(super) fn verify(
        request: EnrolmentRequest,
        certified: Option<&Certified>,
    ) -> Result<Self, EnrolError> {
        let csr = Csr::parse(&request.csr)?;
        let sealing_key = BASE64
            .decode(request.sealing_key.as_bytes())
            .map_err(|_| EnrolError::Sealing)?;
        let proof = BASE64
            .decode(request.sealing_proof.as_bytes())
            .map_err(|_| EnrolError::Sealing)?;
        // With an all-zero key anyone could read what is sealed to it.
        let plausible = sealing_key.len() == 32 && sealing_key.iter().any(|byte| *byte != 0);
        let statement = sealing_statement(&request.device, &request.sealing_key);
        if !plausible || !csr.key().verifies(&statement, &proof) {
            return Err(EnrolError::Sealing);
        }
        let vouched = certified.is_some_and(|certified| {
            certified.device == request.device && certified.key == csr.key().fingerprint()
        });
        Ok(Self {
            vouched,
            device: request.device,
            key: csr.key().clone(),
            sealing_key: request.sealing_key,
            hardware: Hardware {
                model: plain(&request.hardware.model, MAX_TEXT),
                serial: plain(&request.hardware.serial, MAX_TEXT),
                architecture: plain(&request.hardware.architecture, MAX_TEXT),
                os: plain(&request.hardware.os, MAX_TEXT),
            },
        })
    }

    pub(super) fn into_request(self, address: String, note: String, now: Timestamp) -> JoinRequest {
        JoinRequest {
            key: self.key.fingerprint(),
            spki: self.key.spki().to_vec(),
            device: self.device,
            sealing_key: self.sealing_key,
            hardware: self.hardware,
            address,
            asked_at: now,
            note,
            vouched: self.vouched,
            state: RequestState::Pending,
        }
    }
}
