//! Encrypted backups: the age format, version 1 (C2SP `age.md`), with X25519 recipients. `age` and every other program for
//! that format can read and write them too.

use std::io::{self, Read, Write};
use std::str::FromStr;

use data_encoding::BASE64_NOPAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

mod bech32;

/// The first line of such a file.
const VERSION: &str = "age-encryption.org/v1";
/// Bytes of plain text in a chunk.
const CHUNK: usize = 64 << 10;
/// Bytes that encryption adds to a chunk.
const TAG: usize = 16;
/// Longest header that is read: some hundred recipients.
const MAX_HEADER: usize = 64 << 10;

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct KeyError(&'static str);

/// Who may read a backup: `age1…`, as `age-keygen` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl FromStr for Recipient {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = bech32::decode("age", text);
        key.map(Self)
            .ok_or(KeyError("an age recipient: write age1…"))
    }
}

/// The secret half: `AGE-SECRET-KEY-1…`, as `age-keygen` writes it to a file.
#[derive(Clone)]
pub struct Identity(StaticSecret);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.recipient()).finish()
    }
}

impl Identity {
    /// The first key of an identity file, whose other lines are comments.
    pub fn parse(file: &str) -> Result<Self, KeyError> {
        let lines = file.lines().map(str::trim);
        let key = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let key = key.map(str::to_lowercase).next().map(Zeroizing::new);
        key.and_then(|key| bech32::decode("age-secret-key-", &key))
            .map(|key| Self(StaticSecret::from(key)))
            .ok_or(KeyError("an age identity: a line AGE-SECRET-KEY-1…"))
    }

    /// The recipient that belongs to this identity.
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }
}

/// The key that a file is encrypted with; the header has it wrapped for each recipient.
pub(super) struct FileKey(Zeroizing<[u8; 16]>);

fn random<const N: usize>() -> io::Result<[u8; N]> {
    crate::keys::random().map_err(io::Error::other)
}

fn derive(secret: &[u8], salt: &[u8], info: &'static str) -> io::Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|key_material| key_material.fill(key.as_mut()))
        .map_err(|_| io::Error::other("no key can be derived"))?;
    Ok(key)
}

fn cipher(key: &[u8; 32]) -> io::Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    key.map(LessSafeKey::new)
        .map_err(|_| io::Error::other("no cipher"))
}

/// The key that wraps the file key for one recipient.
fn wrapping(
    secret: &StaticSecret,
    with: &PublicKey,
    share: &[u8; 32],
    recipient: &[u8; 32],
) -> io::Result<LessSafeKey> {
    let shared = secret.diffie_hellman(with);
    if !shared.was_contributory() {
        return Err(invalid("a weak public key"));
    }
    let salt = [*share, *recipient].concat();
    cipher(&*derive(
        shared.as_bytes(),
        &salt,
        "age-encryption.org/v1/X25519",
    )?)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl FileKey {
    /// Makes a random key.
    pub(super) fn make() -> io::Result<Self> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    fn header(&self, recipients: &[Recipient]) -> io::Result<String> {
        let mut header = format!("{VERSION}\n");
        for Recipient(recipient) in recipients {
            let secret = StaticSecret::from(random::<32>()?);
            let share = PublicKey::from(&secret).to_bytes();
            let with = PublicKey::from(*recipient);
            let mut body = self.0.to_vec();
            wrapping(&secret, &with, &share, recipient)?
                .seal_in_place_append_tag(zero(), Aad::empty(), &mut body)
                .map_err(|_| invalid("the file's key cannot be wrapped"))?;
            let (share, body) = (BASE64_NOPAD.encode(&share), BASE64_NOPAD.encode(&body));
            header.extend(["-> X25519 ", &share, "\n", &body, "\n"]);
        }
        header += "---";
        let mac = hmac::sign(&self.mac()?, header.as_bytes());
        header.extend([" ", &BASE64_NOPAD.encode(mac.as_ref()), "\n"]);
        Ok(header)
    }

    fn mac(&self) -> io::Result<hmac::Key> {
        let key = derive(self.0.as_ref(), b"", "header")?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    fn payload(&self, nonce: &[u8; 16]) -> io::Result<LessSafeKey> {
        cipher(&*derive(self.0.as_ref(), nonce, "payload")?)
    }

    /// Unwraps the key in a header with an identity.
    fn find(header: &str, identity: &Identity) -> io::Result<Self> {
        let mut lines = header.lines().skip(1);
        let recipient = identity.recipient().0;
        while let Some(line) = lines.next() {
            let Some(arguments) = line.strip_prefix("-> ") else {
                continue;
            };
            let Some(share) = arguments.strip_prefix("X25519 ") else {
                continue;
            };
            let bytes = |text: &str| BASE64_NOPAD.decode(text.as_bytes()).ok();
            let share: Option<[u8; 32]> = bytes(share).and_then(|bytes| bytes.try_into().ok());
            let body = lines.next().and_then(bytes).filter(|body| body.len() == 32);
            let (Some(share), Some(mut body)) = (share, body) else {
                return Err(invalid("a recipient of it cannot be read"));
            };
            let key = wrapping(&identity.0, &PublicKey::from(share), &share, &recipient)?;
            let opened = key.open_in_place(zero(), Aad::empty(), &mut body);
            if let Ok(found) = opened
                && let Ok(found) = <[u8; 16]>::try_from(&*found)
            {
                return Ok(Self(Zeroizing::new(found)));
            }
        }
        Err(invalid("it is not for this identity"))
    }
}

/// The nonce of a chunk.
fn nonce(chunk: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

/// An encrypting writer. The output is complete only after [`Self::finish`].
pub(super) struct Sealing<W> {
    to: W,
    key: LessSafeKey,
    chunk: u64,
    /// Buffered plain text: a chunk is encrypted once it is known whether it is the last.
    waiting: Vec<u8>,
}

impl<W: Write> Sealing<W> {
    pub(super) fn new(mut to: W, file: &FileKey, recipients: &[Recipient]) -> io::Result<Self> {
        to.write_all(file.header(recipients)?.as_bytes())?;
        let nonce = random()?;
        to.write_all(&nonce)?;
        Ok(Self {
            to,
            key: file.payload(&nonce)?,
            chunk: 0,
            waiting: Vec::with_capacity(CHUNK + TAG),
        })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.chunk, last);
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.waiting)
            .map_err(|_| invalid("a chunk cannot be encrypted"))?;
        self.to.write_all(&self.waiting)?;
        self.waiting.clear();
        self.chunk += 1;
        Ok(())
    }

    /// Writes the last chunk.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting.len() == CHUNK {
            self.seal(false)?;
        }
        let count = bytes.len().min(CHUNK - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A decrypting reader. A truncated file is an error.
pub(super) struct Opening<R> {
    from: R,
    key: LessSafeKey,
    chunk: u64,
    plain: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Opening<R> {
    /// Opens a file with an identity.
    pub(super) fn new(mut from: R, identity: &Identity) -> io::Result<Self> {
        let header = header(&mut from)?;
        let file = FileKey::find(&header, identity)?;
        Self::after(from, &header, &file)
    }

    /// Opens a file with the file key itself, to read back what was just written.
    pub(super) fn with(mut from: R, file: &FileKey) -> io::Result<Self> {
        let header = header(&mut from)?;
        Self::after(from, &header, file)
    }

    fn after(mut from: R, header: &str, file: &FileKey) -> io::Result<Self> {
        let (signed, mac) = header
            .rsplit_once(' ')
            .ok_or_else(|| invalid("its header has no end"))?;
        let mac = BASE64_NOPAD.decode(mac.trim_end().as_bytes());
        let mac = mac.map_err(|_| invalid("its header cannot be read"))?;
        hmac::verify(&file.mac()?, signed.as_bytes(), &mac)
            .map_err(|_| invalid("its header was modified"))?;
        let mut nonce = [0; 16];
        from.read_exact(&mut nonce)?;
        Ok(Self {
            from,
            key: file.payload(&nonce)?,
            chunk: 0,
            plain: Vec::new(),
            at: 0,
            ended: false,
        })
    }

    fn next(&mut self) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(CHUNK + TAG);
        let most = (CHUNK + TAG) as u64;
        self.from.by_ref().take(most).read_to_end(&mut sealed)?;
        // a full chunk may be the last one too, which only its tag says
        let whole = sealed.len() == CHUNK + TAG;
        let mut found = None;
        for last in if whole { &[false, true][..] } else { &[true] } {
            let mut text = sealed.clone();
            let opened = self
                .key
                .open_in_place(nonce(self.chunk, *last), Aad::empty(), &mut text);
            if let Ok(plain) = opened {
                found = Some((plain.to_vec(), *last));
                break;
            }
        }
        let (plain, last) = found.ok_or_else(|| invalid("it was modified or truncated"))?;
        if last && self.from.read(&mut [0])? > 0 {
            return Err(invalid("there is data after its end"));
        }
        self.plain = plain;
        self.at = 0;
        self.chunk += 1;
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() && !self.ended {
            self.next()?;
        }
        let count = buffer.len().min(self.plain.len() - self.at);
        buffer[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Whether a file begins like an encrypted one.
pub(super) fn is_sealed(beginning: &[u8]) -> bool {
    beginning.starts_with(VERSION.as_bytes())
}

/// Reads the header, up to and including the line with its MAC.
fn header(from: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut begins = 0;
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        if byte[0] == b'\n' {
            if bytes[begins..].starts_with(b"--- ") {
                break;
            }
            begins = bytes.len();
        }
        if bytes.len() > MAX_HEADER {
            return Err(invalid("its header has no end"));
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid("its header cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // 32 bytes 0x42; age-keygen 1.1.1 gives the same recipient for it
    const SECRET: &str = "# created: 2026-11-28T06:00:00Z\nAGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n";

    fn identity() -> Identity {
        Identity::parse(SECRET).unwrap()
    }

    fn sealed(plain: &[u8], recipients: &[Recipient]) -> Vec<u8> {
        let file = FileKey::make().unwrap();
        let mut sealing = Sealing::new(Vec::new(), &file, recipients).unwrap();
        sealing.write_all(plain).unwrap();
        sealing.finish().unwrap()
    }

    fn opened(sealed: &[u8], identity: &Identity) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Opening::new(sealed, identity)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_is_sealed_is_read_by_its_recipients_alone() {
        let (mine, other) = (identity(), Identity(StaticSecret::from([7; 32])));
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
            let text = sealed(&plain, &[other.recipient(), mine.recipient()]);
            assert_eq!(opened(&text, &mine).unwrap(), plain, "{length}");
            assert_eq!(opened(&text, &other).unwrap(), plain, "{length}");
            let stranger = Identity(StaticSecret::from([8; 32]));
            let error = opened(&text, &stranger).unwrap_err();
            assert_eq!(error.to_string(), "it is not for this identity");
        }
    }

    #[test]
    fn what_was_altered_or_cut_is_refused() {
        let mine = identity();
        let plain = vec![1; 2 * CHUNK];
        let text = sealed(&plain, &[mine.recipient()]);
        let mut tried = 0;
        for at in (0..text.len()).step_by(97) {
            let mut altered = text.clone();
            altered[at] ^= 1;
            assert!(opened(&altered, &mine).is_err(), "byte {at}");
            assert!(opened(&text[..at], &mine).is_err(), "cut at {at}");
            tried += 2;
        }
        // also when cut at the boundary of a chunk
        assert!(opened(&text[..text.len() - CHUNK - TAG], &mine).is_err());
        assert!(opened(&[&text[..], b"x"].concat(), &mine).is_err());
        println!("sealed backups: {tried} altered or cut, none read");
    }
}
