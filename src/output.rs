//! Output: the answer goes to stdout, everything else to stderr.

use std::io::{self, Write};

/// Writes a part of the answer.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints a message that is not the answer. A closed stderr is not an error.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether the reader of the answer has closed the pipe: `flotta get devices | head -1`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The file that stdout is redirected to, if it is.
pub(crate) fn destination() -> Option<String> {
    let path = std::fs::read_link("/proc/self/fd/1").ok()?;
    let is_file = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
    let name = path.file_name()?.to_str()?;
    is_file.then(|| name.to_owned())
}
