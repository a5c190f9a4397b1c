//! Fail points, only in builds with the feature `faults`: the lab makes the agent crash at each step of an apply.

/// Aborts if `FLOTTA_ABORT_AT_STEP` names this step and the file `FLOTTA_FUSE` exists: it is removed first, so that the agent
/// crashes only once.
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

/// Does nothing in a release build.
#[cfg(not(feature = "faults"))]
pub(crate) fn point(_step: usize) {}
