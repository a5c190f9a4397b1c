//! Fail points, in builds with the feature `faults` alone: the lab has the agent die at each step of an apply.

/// Dies here if `FLOTTA_ABORT_AT_STEP` names this step and the file `FLOTTA_FUSE` is there: it is removed first, so that
/// the agent dies once.
#[cfg(feature = "faults")]
pub(crate) fn point(step: usize) {
    let asked = std::env::var("FLOTTA_ABORT_AT_STEP").ok();
    if asked.and_then(|text| text.parse().ok()) != Some(step) {
        return;
    }
    let fuse = std::env::var_os("FLOTTA_FUSE").unwrap_or_default();
    if std::fs::remove_file(fuse).is_ok() {
        std::process::abort();
    }
}

/// Nothing, in what ships.
#[cfg(not(feature = "faults"))]
pub(crate) fn point(_step: usize) {}
