//! `posthouse backup`, `restore` and `check`: copies of a relay's store, and whether one is sound.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, anyhow, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ask::{self, Whose};
use super::{CliError, output};
use crate::random::SystemEntropy;
use crate::store::StoreError;
use crate::store::redb::file::journal_of;
use crate::store::redb::relay::{BackupError, Progress, backup_file, check_file, restore_file, verify_backup};
use crate::time::SystemClock;

/// A backup is synced every so many bytes: all at once, at the end, would hold up the relay's own syncs.
const SYNCED_BYTES: usize = 4 << 20;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  posthouse backup relay.backup                      of the relay that runs on ./data, or ran there
  posthouse backup /backup/relay-$(date +%F) --data /var/lib/posthouse/data")]
pub(super) struct Backup {
    /// The file to write; one of that name is replaced once the new one is whole
    file: PathBuf,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  posthouse restore relay.backup                     where there is no store
  posthouse restore relay.backup --force             move the store aside that is there")]
pub(super) struct Restore {
    /// A file that `posthouse backup` wrote
    file: PathBuf,
    #[command(flatten)]
    whose: Whose,
    /// Move a store that is there aside, to relay.redb.old
    #[arg(long)]
    force: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  posthouse check --data /var/lib/posthouse/data")]
pub(super) struct Check {
    #[command(flatten)]
    whose: Whose,
}

/// Copies the store of a running relay, or of one that does not run.
pub(super) fn backup(args: Backup) -> Result<(), CliError> {
    let settings = args.whose.settings()?;
    let store = settings.store_file();
    if args.file.is_dir() {
        return Err(anyhow!("{} is a directory: name a file in it", args.file.display()).into());
    }
    let progress = match ask::open(&settings.data, "backup")? {
        Some(running) => write(running, &args.file),
        None => there(&store).and_then(|()| stopped(&store, &args.file)),
    };
    let progress = progress.with_context(|| format!("no backup was made of {}", store.display()))?;
    Ok(output::line(&format!("{} rows of {} are in {}", progress.rows, store.display(), args.file.display()))
        .context("standard output")?)
}

/// Without a store there is nothing to read; the most likely reason is a wrong directory.
fn there(store: &Path) -> anyhow::Result<()> {
    match fs::exists(store) {
        Ok(false) => Err(anyhow!("there is no {}: name the relay's directory with --data", store.display())),
        _ => Ok(()),
    }
}

fn stopped(store: &Path, file: &Path) -> anyhow::Result<Progress> {
    let (reader, mut writer) = io::pipe()?;
    let unread = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let unread = unread.clone();
            let take = move |piece: bytes::Bytes| {
                writer.write_all(&piece).map_err(|error| {
                    unread.store(true, Ordering::Relaxed);
                    StoreError::Unavailable(error.to_string().into())
                })
            };
            backup_file(store, &SystemEntropy, Box::new(take))
        });
        let written = write(reader, file);
        let read = reading.join().map_err(|_| anyhow!("the store cannot be read"))?;
        // Why the one end stopped first says more than that the other came to an early end.
        if !unread.load(Ordering::Relaxed) {
            read?;
        }
        written
    })
}

/// Writes what comes to a file, which has its name once it is whole and on the disk.
fn write(from: impl Read, path: &Path) -> anyhow::Result<Progress> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_part(from, &part).and_then(|progress| {
        fs::rename(&part, path)?;
        Ok(progress)
    });
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written.with_context(|| path.display().to_string())
}

fn write_part(from: impl Read, part: &Path) -> anyhow::Result<Progress> {
    // Whoever can read it can read every message.
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(part)?;
    let bar = bar("backup");
    let mut copied = Copied { from, to: BufWriter::with_capacity(1 << 20, file), unsynced: 0, failed: false };
    let progress = verify_backup(&mut copied, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let progress = match progress {
        Err(BackupError::Io(error)) if copied.failed => bail!("it cannot be written: {error}"),
        Err(BackupError::Io(error)) => bail!("it was cut off ({error}); the relay's log says why"),
        other => other?,
    };
    copied.to.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    Ok(progress)
}

/// Copies to a file what is read through it.
struct Copied<R> {
    from: R,
    to: BufWriter<File>,
    /// Bytes that may not be on the disk yet.
    unsynced: usize,
    /// The file takes nothing more.
    failed: bool,
}

impl<R> Copied<R> {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNCED_BYTES {
            self.to.flush()?;
            self.to.get_ref().sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl<R: Read> Read for Copied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.keep(buffer.get(..length).unwrap_or_default()).inspect_err(|_| self.failed = true)?;
        Ok(length)
    }
}

/// Makes a store of a backup.
pub(super) fn restore(args: Restore) -> Result<(), CliError> {
    let settings = args.whose.settings()?;
    let (store, backup) = (settings.store_file(), args.file.display());
    if ask::open(&settings.data, "relays")?.is_some() {
        return Err(anyhow!("a relay runs on {}: stop it first", settings.data.display()).into());
    }
    verified(&args.file).with_context(|| backup.to_string())?;
    fs::create_dir_all(&settings.data).with_context(|| settings.data.display().to_string())?;
    if fs::exists(&store).with_context(|| store.display().to_string())? {
        if !args.force {
            let there = anyhow!("{} is there already: move it away, or have it moved with --force", store.display());
            return Err(there.into());
        }
        move_aside(&store)?;
    }
    let (clock, bar) = (SystemClock::shared(), bar("restore"));
    let restored = restore_file(&args.file, &store, (&*clock, &SystemEntropy), &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let progress = restored.with_context(|| backup.to_string())?;
    let words = format!("{} rows of {backup} are in {}, a store with a new id", progress.rows, store.display());
    Ok(output::line(&words).context("standard output")?)
}

fn verified(backup: &Path) -> Result<Progress, BackupError> {
    verify_backup(io::BufReader::with_capacity(1 << 20, File::open(backup)?), &mut |_| ())
}

/// The last store may hold what the backup does not, so it is kept; the one before it is not.
fn move_aside(store: &Path) -> anyhow::Result<()> {
    // Only a relay that runs has it locked; one whose admin endpoint did not answer shows here.
    let file = File::open(store)?;
    file.try_lock().map_err(|_| anyhow!("{} is in use by another process: stop that one", store.display()))?;
    let old = store.with_extension("redb.old");
    fs::rename(store, &old).with_context(|| old.display().to_string())?;
    // What it lacks after a crash goes with it.
    let (journal, its) = (journal_of(store), journal_of(&old));
    let moved = if fs::exists(&journal)? { fs::rename(&journal, &its) } else { remove_if_there(&its) };
    moved.with_context(|| its.display().to_string())?;
    Ok(output::line(&format!("{} is now {}", store.display(), old.display()))?)
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Reads all of a store, and says what does not fit together.
pub(super) fn check(args: Check) -> Result<(), CliError> {
    let store = args.whose.settings()?.store_file();
    there(&store)?;
    let report = check_file(&store, &SystemEntropy).map_err(|error| anyhow!(error))?;
    let words = format!(
        "{}: {} messages in {} mailboxes and outboxes, {} lanes; pages, indexes, counts and lanes compared",
        store.display(),
        report.messages,
        report.mailboxes,
        report.lanes
    );
    output::line(&words).context("standard output")?;
    for problem in &report.problems {
        output::line(problem).context("standard output")?;
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(anyhow!("{} is damaged in {count} places: restore a backup", store.display()).into()),
    }
}

/// A bar on standard error, if somebody looks at it.
fn bar(what: &'static str) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{prefix} {bar:40} {percent}%  {pos} rows, {per_sec}, {eta} left");
    ProgressBar::with_draw_target(None, target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(what)
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.of);
    bar.set_position(progress.rows);
}
