//! stdout is the answer, stderr is the talk.

use std::io::{self, Write};

/// Writes a piece of the answer.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Says something that is not the answer. Nobody may be listening, and that is no error.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether the reader of the answer went away: `flotta get devices | head -1`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The file that the answer goes to, when it goes to one.
pub(crate) fn destination() -> Option<String> {
    let path = std::fs::read_link("/proc/self/fd/1").ok()?;
    let is_file = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
    let name = path.file_name()?.to_str()?;
    is_file.then(|| name.to_owned())
}
