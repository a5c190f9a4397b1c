//! `flotta crds` and `flotta schema`: what clusters and editors check objects with.

use crate::error::Answer;
use crate::{output, print};

/// Prints the CRDs of all kinds.
pub(crate) fn crds() -> anyhow::Result<Answer> {
    let crds = flotta_api::crds();
    let crds = crds
        .iter()
        .map(print::yaml)
        .collect::<Result<Vec<_>, _>>()?;
    output::answer(&crds.join("---\n"))?;
    Ok(Answer::Yes)
}

/// Prints the JSON Schema of all kinds.
pub(crate) fn schema() -> anyhow::Result<Answer> {
    let schema = serde_json::to_string(&flotta_renderer::check::editor_schema())?;
    output::answer(&format!("{schema}\n"))?;
    Ok(Answer::Yes)
}
