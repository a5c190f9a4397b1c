//! Small files, written atomically and never longer than expected.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The prefix of temporary file names.
pub(crate) const TEMPORARY: &str = ".new-";

/// Writes `bytes` so that a power cut leaves the old content or the new, never a part. The file has `mode` from the start, so
/// that a secret is never readable by others.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // tempfile's own functions put the random name into errors, so each would look like a new one.
    let open = |path: &Path| {
        let mut new = File::options();
        new.write(true).create_new(true).mode(mode).open(path)
    };
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .make_in(folder, open)?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Reads a file of at most `max` bytes; none when there is no such file.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    bounded(bytes, max).map(Some)
}

/// Refuses content longer than `max` bytes, because it could not be read back.
pub(crate) fn bounded(bytes: Vec<u8>, max: usize) -> io::Result<Vec<u8>> {
    if bytes.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than {max} bytes"),
        ));
    }
    Ok(bytes)
}

/// Removes a file if it exists.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named_alike_at_every_try() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("missing/file");
        let error = || {
            write(&path, b"content", 0o600)
                .expect_err("no folder")
                .to_string()
        };
        assert_eq!(error(), error());
    }
}
