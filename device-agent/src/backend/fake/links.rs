//! What enabling a unit does.

use std::collections::BTreeSet;

use super::state::values;

/// The folders of units that a machine starts when it boots, as far as tests use them.
pub(super) const BOOT: [&str; 3] = [
    "multi-user.target.wants",
    "sockets.target.wants",
    "timers.target.wants",
];

/// The links that enabling a unit makes.
pub(super) fn links(text: &str) -> BTreeSet<String> {
    let keys = [
        ("WantedBy", "wants"),
        ("RequiredBy", "requires"),
        ("UpheldBy", "upholds"),
    ];
    let of_key = |(key, folder): (&'static str, &'static str)| {
        let units = values(text, key).flat_map(str::split_whitespace);
        units.map(move |unit| format!("{unit}.{folder}"))
    };
    keys.into_iter().flat_map(of_key).collect()
}
