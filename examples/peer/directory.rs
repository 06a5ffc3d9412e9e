//! A peer's directory: its key, the address of its home relay, and who is using it. The client keeps its store
//! beside them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use posthouse::address::RelayAddress;
use posthouse::identity::Identity;
use posthouse::random::SystemEntropy;

use crate::fault::Fault;

/// `peer.key` and `peer.crt`.
const IDENTITY: &str = "peer";

/// The home relay's address, on one line.
const RELAY: &str = "relay";

/// The token of an invitation that was not used yet, on one line.
const INVITATION: &str = "invitation";

/// Locked by the process that has the directory, and names it.
const LOCK: &str = "lock";

/// A directory that is this process's until it ends.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) identity: Identity,
    pub(crate) relay: Option<RelayAddress>,
    _lock: File,
}

/// What is in a directory.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) identity: Identity,
    pub(crate) relay: Option<RelayAddress>,
}

impl Directory {
    /// Takes the directory, makes what is missing in it, and remembers a relay that is new.
    pub(crate) fn open(path: &Path, relay: Option<RelayAddress>) -> Result<Self, Fault> {
        let remembered = known(path, relay.as_ref())?;
        let lock = lock(path)?;
        let identity = Identity::load_or_create(path, IDENTITY, &SystemEntropy).context("no identity")?;
        if let Some(relay) = &relay
            && Some(relay) != remembered.as_ref()
        {
            remember(path, relay).with_context(|| format!("cannot write {}", path.join(RELAY).display()))?;
        }
        Ok(Self { identity, relay: relay.or(remembered), _lock: lock })
    }
}

/// Looks into a directory. One that another process has can be looked into if there is nothing to be made.
pub(crate) fn look(path: &Path, relay: Option<RelayAddress>) -> Result<Found, Fault> {
    let known = known(path, relay.as_ref())?;
    let is_made = ["key", "crt"].iter().all(|end| path.join(format!("{IDENTITY}.{end}")).exists());
    if is_made && (relay.is_none() || relay == known) {
        let identity = Identity::load_or_create(path, IDENTITY, &SystemEntropy).context("no identity")?;
        return Ok(Found { identity, relay: known });
    }
    Directory::open(path, relay).map(|directory| Found { identity: directory.identity, relay: directory.relay })
}

fn lock(path: &Path) -> Result<File, Fault> {
    let name = path.join(LOCK);
    let broken = || format!("cannot use {}: give a directory that can be written with --data", name.display());
    fs::create_dir_all(path).with_context(broken)?;
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = file.with_context(broken)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Fault::Failed(in_use(path, &mut file))),
        Err(TryLockError::Error(error)) => return Err(anyhow::Error::new(error).context(broken()).into()),
    }
    let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    named.with_context(broken)?;
    Ok(file)
}

fn in_use(path: &Path, lock: &mut File) -> anyhow::Error {
    let mut pid = String::new();
    // A process that has only just taken it is not named yet.
    let read = lock.take(20).read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse::<u32>().ok());
    let who = read.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    anyhow!("{} is in use by {who}: stop that one, or give another directory with --data", path.display())
}

/// The remembered relay. One that cannot be read is no matter to somebody who names another.
fn known(path: &Path, named: Option<&RelayAddress>) -> Result<Option<RelayAddress>, Fault> {
    let remembered = remembered(path);
    if named.is_some() { Ok(remembered.unwrap_or_default()) } else { remembered }
}

fn remembered(path: &Path) -> Result<Option<RelayAddress>, Fault> {
    let name = path.join(RELAY);
    match fs::read_to_string(&name) {
        Ok(text) => {
            let address = text.trim().parse::<RelayAddress>();
            let address = address.with_context(|| format!("{}: give the right one with --relay", name.display()));
            address.map(Some).map_err(Fault::Usage)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", name.display())).into()),
    }
}

/// The invitation to show, if there is one.
pub(crate) fn invitation(path: &Path) -> Result<Option<String>, Fault> {
    let name = path.join(INVITATION);
    match fs::read_to_string(&name) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", name.display())).into()),
    }
}

/// Remembers an invitation until it is used. Like a password it is for its owner's eyes alone.
pub(crate) fn remember_invitation(path: &Path, token: &str) -> Result<(), Fault> {
    let name = path.join(INVITATION);
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&name);
    let written = file.and_then(|mut file| writeln!(file, "{}", token.trim()));
    Ok(written.with_context(|| format!("cannot write {}", name.display()))?)
}

/// It was used: a relay that has a mailbox for this peer wants none.
pub(crate) fn forget_invitation(path: &Path) {
    // One that stays is shown again, which does no harm.
    fs::remove_file(path.join(INVITATION)).ok();
}

/// At any time the old address is there or the new one, whole.
fn remember(path: &Path, relay: &RelayAddress) -> io::Result<()> {
    let (new, name) = (path.join(format!("{RELAY}.new")), path.join(RELAY));
    let mut file = File::create(&new)?;
    writeln!(file, "{relay}")?;
    file.sync_all()?;
    fs::rename(new, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse::id::RelayId;

    fn relay(port: u16) -> RelayAddress {
        format!("posthouse://{}@localhost:{port}", RelayId::from_bytes([3; 32])).parse().unwrap()
    }

    #[test]
    fn a_relay_is_remembered_until_another_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let open = |relay| Directory::open(dir.path(), relay).unwrap().relay;
        assert_eq!(open(None), None);
        assert_eq!(open(Some(relay(1))), Some(relay(1)));
        assert_eq!(open(None), Some(relay(1)));
        assert_eq!(open(Some(relay(2))), Some(relay(2)));
        assert_eq!(open(None), Some(relay(2)));
    }

    #[test]
    fn an_invitation_is_remembered_until_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(invitation(dir.path()).unwrap(), None);
        remember_invitation(dir.path(), "one").unwrap();
        remember_invitation(dir.path(), " two\n").unwrap();
        assert_eq!(invitation(dir.path()).unwrap().as_deref(), Some("two"));
        forget_invitation(dir.path());
        assert_eq!(invitation(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_directory_in_use_names_the_process_and_can_still_be_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let mine = Directory::open(dir.path(), Some(relay(1))).unwrap();
        let refused = Directory::open(dir.path(), None).unwrap_err();
        assert_eq!(refused.code(), 1);
        assert!(refused.words().unwrap().contains(&format!("process {}", std::process::id())));
        let found = look(dir.path(), None).unwrap();
        assert_eq!((found.identity.peer_id(), found.relay), (mine.identity.peer_id(), Some(relay(1))));
        assert!(look(dir.path(), Some(relay(2))).is_err());
    }

    #[test]
    fn a_spoilt_relay_file_is_a_matter_of_configuration_that_relay_mends() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RELAY), "nonsense").unwrap();
        assert_eq!(Directory::open(dir.path(), None).unwrap_err().code(), 2);
        assert_eq!(Directory::open(dir.path(), Some(relay(1))).unwrap().relay, Some(relay(1)));
    }
}
