//! Files that people write, or could: read whole, but never more than so much.
//!
//! Settings, profiles, certificates and views are small. A path that is wrong by a letter may name a disk image, a log or
//! `/dev/zero`, and reading that whole before looking at it takes all memory. This lives here because everybody who reads
//! such files stands above this crate, and it reads some itself.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Most bytes of settings: a node's or testnet's configuration, a profile, a secret, a certificate, a key.
pub const SETTINGS_BYTES_MAX: usize = 256 << 10;

/// Most bytes of a view as JSON. One of 65,536 partitions with 16 owners each, and 4096 members, has less than 8 MiB.
pub const VIEW_BYTES_MAX: usize = 16 << 20;

/// The bytes of a file that has at most so many.
///
/// # Errors
/// As of any read; [`io::ErrorKind::FileTooLarge`] if there are more.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // one more than allowed tells that there is more; a length from the system would say nothing of a device
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let reason = format!("longer than the {bytes_max} bytes that such a file may have");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// The text of a file that has at most so many bytes.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] if it is no text.
pub fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a text: it is not UTF-8"))
}

/// What a parser says of a file, cut to a length that people read: parsers repeat the line or the word that they did not
/// understand, and that may be all of the file.
pub fn in_short(error: impl std::fmt::Display) -> String {
    let reason = error.to_string();
    match reason.char_indices().nth(REASON_CHARS_MAX) {
        None => reason,
        Some((end, _)) => format!("{}… and so on", &reason[..end]),
    }
}

const REASON_CHARS_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_letters() {
        assert_eq!(in_short("short"), "short");
        let long = in_short("ä".repeat(5000));
        assert!(long.starts_with("ää") && long.ends_with("… and so on") && long.len() < 2000);
    }

    /// The limit is exact, and a file without an end is a file that is too long.
    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (length, fits) in [(0, true), (10, true), (11, false), (5000, false)] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            match read_text(&path, 10) {
                Ok(text) => assert!(fits && text.len() == length),
                Err(error) => assert!(!fits && error.kind() == io::ErrorKind::FileTooLarge),
            }
        }
        let endless = read(Path::new("/dev/zero"), SETTINGS_BYTES_MAX).unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_text(&path, 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read(folder.path(), 10).is_err() && read(&folder.path().join("none"), 10).is_err());
    }
}
