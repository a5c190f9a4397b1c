//! Kubernetes quantities: `500m`, `1.5`, `64Mi`, `2G`, `129e6`.

/// A quantity in billionths, the smallest unit of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

/// Decimal suffixes, and the power of ten of each.
const TENS: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// Binary suffixes, in the order of their powers of 1024.
const TWOS: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

const NANO: i128 = 1_000_000_000;

impl Quantity {
    pub(super) const ZERO: Self = Self(0);
    pub(super) const ONE: Self = Self(NANO);

    /// Parses a quantity. Returns `None` if the text is invalid, negative, or larger than Kubernetes allows.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let end = unsigned.find(|c| !number(c)).unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return None;
        }
        // `1.500` is `1.5`; the trailing zeros must not cause an overflow.
        let part = part.trim_end_matches('0');
        let digits: i128 = format!("0{whole}{part}").parse().ok()?;
        let places = i32::try_from(part.len()).ok()?;
        let (factor, power) = scale(suffix)?;
        let nanos = scaled(digits.checked_mul(factor)?, power - places + 9)?;
        (nanos <= i128::from(i64::MAX) * NANO).then_some(Self(nanos))
    }

    /// Returns how many units it is, rounded up as in Kubernetes.
    pub(super) fn count(self, unit: Self) -> Option<u64> {
        let unit = Some(unit.0).filter(|unit| *unit > 0)?;
        u64::try_from((self.0 + unit - 1) / unit).ok()
    }

    /// Returns the quantity as a whole number, rounded up.
    pub(super) fn units(self) -> u64 {
        self.count(Self::ONE).unwrap_or(u64::MAX)
    }

    /// Returns the quantity in thousandths, rounded up.
    pub(super) fn thousandths(self) -> u64 {
        self.count(Self(NANO / 1000)).unwrap_or(u64::MAX)
    }
}

/// Returns the factor and the power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    if let Some((_, power)) = TENS.iter().find(|(name, _)| *name == suffix) {
        return Some((1, *power));
    }
    if let Some(at) = TWOS.iter().position(|name| *name == suffix) {
        return Some((1 << (10 * (at + 1)), 0));
    }
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-1000..=1000).contains(&power).then_some((1, power))
}

/// Returns a number times a power of ten, rounded up.
fn scaled(number: i128, power: i32) -> Option<i128> {
    if number == 0 {
        return Some(0);
    }
    let ten = 10_i128.checked_pow(power.unsigned_abs());
    if power >= 0 {
        return number.checked_mul(ten?);
    }
    // A number below one billionth is rounded up to it.
    Some(ten.map_or(1, |ten| number / ten + i128::from(number % ten != 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let bytes = |text| Quantity::parse(text).map(Quantity::units);
        for text in [
            "128974848",
            "128974848000m",
            "123Mi",
            "125952Ki",
            "+128974848",
        ] {
            assert_eq!(bytes(text), Some(128_974_848), "{text}");
        }
        for text in [
            "129e6",
            "129E6",
            "129M",
            "0.129G",
            "1290e5",
            "12900000e1",
            "129000000.000",
        ] {
            assert_eq!(bytes(text), Some(129_000_000), "{text}");
        }
        assert_eq!(bytes("2E"), Some(2_000_000_000_000_000_000));
        assert_eq!(bytes("1e-3"), Some(1));
        assert_eq!(bytes("1e-400"), Some(1));
        assert_eq!(bytes("0"), Some(0));
        let cpu = |text| Quantity::parse(text).map(Quantity::thousandths);
        assert_eq!(cpu("1.5"), Some(1500));
        assert_eq!(cpu(".5"), Some(500));
        assert_eq!(cpu("5."), Some(5000));
        assert_eq!(cpu("100m"), Some(100));
        assert_eq!(cpu("100u"), Some(1));
        for text in [
            "",
            ".",
            "m",
            "1.2.3",
            "1 Mi",
            "1K",
            "1mi",
            "-1",
            "1e",
            "1e1.5",
            "0x10",
            "100E",
            "1e400",
            "1e99999999999",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_divisor_rounds_up() {
        let count = |a, b| Quantity::parse(a)?.count(Quantity::parse(b)?);
        assert_eq!(count("64Mi", "1Mi"), Some(64));
        assert_eq!(count("64Mi", "1M"), Some(68));
        assert_eq!(count("500m", "1"), Some(1));
        assert_eq!(count("1500m", "1m"), Some(1500));
        assert_eq!(count("1", "0"), None);
    }
}
