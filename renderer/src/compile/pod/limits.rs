//! How much a container may use.

use flotta_bundle::code;

use super::asked::Asked;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::Limits;

pub(super) const FIELDS: &[Field] = &[
    Field::carried(
        "containers[].resources.limits",
        "`PodmanArgs=--cpus` and `--memory`",
    ),
    Field::refused(
        "resourceClaims",
        "a device has no scheduler that could give them",
    ),
    Field::refused("overhead", "a device has no runtime classes"),
];

pub(super) fn limits(job: &mut Job<'_>, asked: Asked<'_>) -> Limits {
    let mut limits = Limits::default();
    let resources = asked.container.resources.as_ref();
    let given = resources.and_then(|resources| resources.limits.as_ref());
    for (name, quantity) in given.into_iter().flatten() {
        let pointer = asked.at(&format!("resources/limits/{name}"));
        let amount = thousandths(&quantity.0);
        match name.as_str() {
            "cpu" => limits.cpu = amount,
            "memory" => limits.memory = amount.map(|amount| amount.div_ceil(1000)),
            _ => {
                let place = job.workload.document.key_place(&pointer);
                let message = format!("limit `{name}` is not acted on: only memory and cpu are");
                job.warn(code::NOT_ACTED_ON, place, message);
                continue;
            }
        }
        if amount.is_none() {
            let message = format!("`{}` is not a quantity", quantity.0);
            job.refuse(code::SCHEMA, &pointer, message);
        }
    }
    limits
}

/// A Kubernetes quantity in thousandths: `500m`, `1.5`, `64Mi`, `2G`.
fn thousandths(quantity: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 14] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("m", 0),
        ("", 1),
    ];
    let (suffix, factor) = SUFFIXES
        .iter()
        .find(|(suffix, _)| quantity.ends_with(suffix))?;
    let (whole, part) = quantity
        .strip_suffix(suffix)?
        .split_once('.')
        .unwrap_or((quantity.strip_suffix(suffix)?, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let number: u64 = format!("0{whole}{part:0<3}").parse().ok()?;
    if *factor == 0 {
        number.checked_div(1000)
    } else {
        number.checked_mul(*factor)
    }
}
