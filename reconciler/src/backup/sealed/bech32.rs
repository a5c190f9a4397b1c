//! Bech32 (BIP 173), as far as age's keys need it: 32 bytes under a prefix, with a checksum against typing errors.

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        let taps = GENERATOR.iter().enumerate();
        taps.fold(shifted, |sum, (bit, tap)| {
            if (top >> bit) & 1 == 1 {
                sum ^ tap
            } else {
                sum
            }
        })
    })
}

/// Decodes a lower-case text to 32 bytes; none when prefix, letters or checksum are wrong.
pub(super) fn decode(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let data = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let values: Vec<u8> = data
        .bytes()
        .map(|byte| ALPHABET.iter().position(|letter| *letter == byte))
        .map(|at| u8::try_from(at?).ok())
        .collect::<Option<_>>()?;
    let expanded = prefix
        .bytes()
        .map(|byte| byte >> 5)
        .chain([0])
        .chain(prefix.bytes().map(|byte| byte & 31));
    if polymod(expanded.chain(values.iter().copied())) != 1 {
        return None;
    }
    let values = values.get(..values.len().checked_sub(CHECKSUM)?)?;
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(32), 0_u32, 0);
    for value in values {
        bits = (bits << 5) | u32::from(*value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    // the bits that are left must be zero, and fewer than one character has
    if bits != 0 || count >= 5 {
        return None;
    }
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_no_key() {
        // from age's own documentation
        let text = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert!(decode("age", text).is_some());
        assert!(decode("age-secret-key-", text).is_none());
        for at in 4..text.len() {
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'q' { b'p' } else { b'q' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(decode("age", &wrong).is_none(), "{wrong}");
        }
        assert!(decode("age", "age1").is_none());
        assert!(decode("age", "").is_none());
    }
}
