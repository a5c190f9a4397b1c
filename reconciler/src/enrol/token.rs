//! Tokens and join files.

use data_encoding::BASE64URL_NOPAD;
use flotta_bundle::DeviceName;
use flotta_bundle::wire::{JoinFile, Token};
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use super::{EnrolError, Enroller, MAX_TTL};
use crate::keys::KeysError;
use crate::store::NewToken;
use crate::store::tokens::{self, TokenRecord};

impl Enroller {
    /// Creates a token that is valid for `ttl`, at most [`MAX_TTL`]. Returns the only copy of it, and when it expires.
    pub async fn create_token(
        &self,
        token: NewToken,
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<(Token, Timestamp), EnrolError> {
        self.fleet.clock().check().map_err(KeysError::from)?;
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| KeysError::Random)?;
        let secret = Token::new(format!("flotta_{}", BASE64URL_NOPAD.encode(&bytes)));
        let expires_at = now + ttl.clamp(SignedDuration::ZERO, MAX_TTL);
        let record = TokenRecord {
            hash: tokens::hash(&secret),
            token,
            created_at: now,
            expires_at,
            used: None,
            revoked: None,
        };
        let (id, by) = (record.id(), record.token.created_by.clone());
        let whose = record.token.device.as_ref().map(ToString::to_string);
        self.store
            .write(
                move |connection| Ok::<_, EnrolError>(tokens::insert(connection, &record)?),
                |()| {},
            )
            .await?;
        let whose = whose.unwrap_or_else(|| "any device".to_owned());
        let message = format!("token {id} for {whose}, until {expires_at:.0}, made by {by}");
        self.note(None, false, "TokenCreated", message, now).await;
        Ok((secret, expires_at))
    }

    /// Revokes a token. Revoking a used token does not affect the device that joined with it, which has to be revoked by name.
    pub async fn revoke_token(
        &self,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<TokenRecord, EnrolError> {
        let (asked, who) = (id.to_owned(), by.to_owned());
        let mut token = self
            .store
            .write(
                move |connection| {
                    let token = tokens::find_by_id(connection, &asked)?;
                    let token = token.ok_or(EnrolError::NoToken(asked))?;
                    if let Some((at, ..)) = token.used {
                        return Err(EnrolError::TokenUsed(at));
                    }
                    if token.revoked.is_none() {
                        tokens::revoke(connection, &token.hash, &who, now)?;
                    }
                    Ok(token)
                },
                |_| {},
            )
            .await?;
        if token.revoked.is_none() {
            token.revoked = Some((now, by.to_owned()));
            let message = format!("token {} was revoked by {by}", token.id());
            self.note(None, false, "TokenRevoked", message, now).await;
        }
        Ok(token)
    }

    /// Makes the join file for a device: the server's address, what to trust, and the token.
    pub fn join_file(
        &self,
        server: String,
        device: Option<DeviceName>,
        token: Option<Token>,
    ) -> JoinFile {
        JoinFile {
            schema: 1,
            fleet: self.fleet.name().clone(),
            server,
            ca: self.fleet.server_ca_certificate_pem(),
            trust_root: self.fleet.trust_root_envelope().clone(),
            device,
            token,
        }
    }
}
