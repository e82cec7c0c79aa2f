//! Where a body goes: a file, memory, or nowhere.
//!
//! A file is written as `FILE.part` and renamed when it is complete, so that a file with its proper name is a whole one.
//! Whatever ends a fetch before that removes the part: its owner need only be dropped. Nothing is synced to the disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::fetch::outcome::{FetchError, Fetched};

/// Bytes collected before they are written: a system call per 64 KiB instead of one per fifo chunk.
const BUFFER: usize = 64 * 1024;

/// A body being stored.
#[derive(Debug)]
pub(crate) enum Sink {
    File(PartFile),
    Memory { bytes: Vec<u8>, max: usize },
    Discard,
}

impl Sink {
    /// A file `path`, to be.
    ///
    /// # Errors
    /// The part cannot be created.
    pub(crate) fn file(path: &Path) -> Result<Sink, FetchError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        match File::create(&part) {
            Ok(file) => {
                let writer = Some(BufWriter::with_capacity(BUFFER, file));
                Ok(Sink::File(PartFile { path: path.to_owned(), part, writer }))
            }
            Err(error) => Err(FetchError::io(part, &error)),
        }
    }

    /// Stores `data` behind what is there.
    ///
    /// # Errors
    /// The file cannot be written, or memory's limit is reached.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), FetchError> {
        match self {
            Sink::File(file) => {
                let Some(writer) = &mut file.writer else { return Ok(()) };
                writer.write_all(data).map_err(|error| FetchError::io(file.part.clone(), &error))
            }
            Sink::Memory { bytes, max } => {
                if data.len() > *max - bytes.len() {
                    return Err(FetchError::TooLarge);
                }
                bytes.extend_from_slice(data);
                Ok(())
            }
            Sink::Discard => Ok(()),
        }
    }

    /// All of the body was written.
    ///
    /// # Errors
    /// The file cannot be written or renamed; the part is gone then.
    pub(crate) fn finish(self) -> Result<Fetched, FetchError> {
        match self {
            Sink::File(file) => file.finish().map(Fetched::File),
            Sink::Memory { bytes, .. } => Ok(Fetched::Memory(bytes)),
            Sink::Discard => Ok(Fetched::Discarded),
        }
    }
}

/// A file that is not complete. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct PartFile {
    path: PathBuf,
    part: PathBuf,
    /// `None` once it was renamed: nothing is left to remove.
    writer: Option<BufWriter<File>>,
}

impl PartFile {
    fn finish(mut self) -> Result<PathBuf, FetchError> {
        if let Some(writer) = &mut self.writer {
            writer.flush().map_err(|error| FetchError::io(self.part.clone(), &error))?;
        }
        fs::rename(&self.part, &self.path).map_err(|error| FetchError::io(self.path.clone(), &error))?;
        self.writer = None;
        Ok(self.path.clone())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // What is buffered is of no use to anyone.
            let _ = writer.into_parts();
            // If this fails too there is no one to tell: the error that led here was told.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"hello ").unwrap();
        assert!(!path.exists() && dir.path().join("a.bin.part").exists());
        sink.write(b"world").unwrap();
        assert_eq!(sink.finish(), Ok(Fetched::File(path.clone())));
        assert_eq!(fs::read(&path).unwrap(), b"hello world");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_given_up_is_removed_and_an_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        fs::write(&path, "old").unwrap();
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"new").unwrap();
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/such/a.bin");
        let error = Sink::file(&path).unwrap_err();
        let named = dir.path().join("no/such/a.bin.part");
        assert!(
            matches!(&error, FetchError::Io { path, kind: std::io::ErrorKind::NotFound, .. } if *path == named)
        );
    }

    #[test]
    fn a_file_that_cannot_be_renamed_leaves_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let sink = Sink::file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(sink.finish(), Err(FetchError::Io { path: named, .. }) if named == path));
        assert!(!dir.path().join("a.part").exists());
    }

    #[test]
    fn memory_has_a_limit() {
        let mut sink = Sink::Memory { bytes: Vec::new(), max: 5 };
        assert_eq!(sink.write(b"hello"), Ok(()));
        assert_eq!(sink.write(b"!"), Err(FetchError::TooLarge));
    }
}
