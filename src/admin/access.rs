//! How commands find a running relay, and prove that they may ask it: a file that only its operator can read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::random::Entropy;

/// The file's name in the relay's data directory.
pub const ACCESS_FILE: &str = "admin.json";

/// Where the admin endpoint is, and what to show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Where it listens.
    pub address: SocketAddr,
    /// What a request has to bring along, as `Authorization: Bearer`.
    pub token: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Access {
    /// A new token for this run.
    #[must_use]
    pub fn new(address: SocketAddr, entropy: &dyn Entropy) -> Self {
        let secret: [u8; 32] = entropy.bytes();
        Self { address, token: data_encoding::HEXLOWER.encode(&secret) }
    }

    /// Writes the file, readable for its owner alone, in place of that of an earlier run. Where there is no room for
    /// another, that of an earlier run is written over.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        self.write_anew(data).or_else(|error| self.write_over(data).map_err(|_| error))
    }

    fn write_anew(&self, data: &Path) -> io::Result<()> {
        let (path, new) = (data.join(ACCESS_FILE), data.join("admin.json.new"));
        // One that was left half-written may have any mode.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = file.write_all(serde_json::to_string(self)?.as_bytes());
        written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| drop(fs::remove_file(&new)))
    }

    /// A full disk has what the file takes already.
    fn write_over(&self, data: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(data.join(ACCESS_FILE))?;
        let text = serde_json::to_string(self)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// What the system says; not found, if no relay was ever started there.
    pub fn read(data: &Path) -> io::Result<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(data.join(ACCESS_FILE))?)?)
    }

    /// Whether a request brought the token. Takes as long for every wrong one of its length.
    #[must_use]
    pub fn admits(&self, authorization: &str) -> bool {
        let Some(shown) = authorization.strip_prefix("Bearer ") else { return false };
        let (shown, token) = (shown.as_bytes(), self.token.as_bytes());
        shown.len() == token.len() && shown.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::random::SystemEntropy;

    #[test]
    fn the_file_is_its_owners_alone_and_tells_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let access = Access::new("127.0.0.1:9".parse().unwrap(), &SystemEntropy);
            access.write(directory.path()).unwrap();
            assert_eq!(Access::read(directory.path()).unwrap(), access);
            let mode = fs::metadata(directory.path().join(ACCESS_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn where_no_other_file_can_be_made_that_of_an_earlier_run_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let access = |place: &str| Access::new(place.parse().unwrap(), &SystemEntropy);
        access("127.0.0.1:65535").write(directory.path()).unwrap();
        // In its way as a full disk would be.
        fs::create_dir(directory.path().join("admin.json.new")).unwrap();
        let now = access("127.0.0.1:9");
        now.write(directory.path()).unwrap();
        assert_eq!(Access::read(directory.path()).unwrap(), now);
    }

    #[test]
    fn nothing_but_the_token_is_admitted() {
        let access = Access { address: "127.0.0.1:9".parse().unwrap(), token: "abc".to_owned() };
        assert!(access.admits("Bearer abc"));
        for wrong in ["", "abc", "Bearer ", "Bearer abd", "Bearer abcd", "bearer abc"] {
            assert!(!access.admits(wrong), "{wrong}");
        }
    }
}
