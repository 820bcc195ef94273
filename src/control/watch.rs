//! Files that change on disk become reloads. Directories are watched rather
//! than files, because editors and deploy tools replace files by renaming.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::Reloader;

/// An editor's several writes become one reload.
const SETTLE: Duration = Duration::from_millis(50);

/// Watches as long as it lives.
pub struct Watcher {
    task: tokio::task::JoinHandle<()>,
}

/// Size and time of a file; `None` while it does not exist.
type Stamp = Option<(u64, SystemTime)>;

struct Watch {
    reloader: Arc<Reloader>,
    notifier: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
    stamps: BTreeMap<PathBuf, Stamp>,
}

impl Watcher {
    /// Watches the configuration and everything it was read from. What changed
    /// after `read_at` is read again.
    pub fn start(reloader: Arc<Reloader>, read_at: SystemTime) -> notify::Result<Self> {
        // One pending wake-up is enough: the watch looks at all files anyway.
        let (wake, mut woken) = mpsc::channel(1);
        let _ = wake.try_send(());
        let notifier = notify::recommended_watcher(move |_| {
            let _ = wake.try_send(());
        })?;
        let mut files = reloader.files();
        let mut watch = Watch { reloader, notifier, directories: BTreeSet::new(), stamps: BTreeMap::new() };
        watch.follow(files.borrow_and_update().clone());
        for stamp in watch.stamps.values_mut() {
            *stamp = stamp.filter(|(_, modified)| *modified < read_at);
        }
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Also after a reload that nobody's look at the files led to.
                    Ok(()) = files.changed() => watch.follow(files.borrow_and_update().clone()),
                    Some(()) = woken.recv() => {
                        tokio::time::sleep(SETTLE).await;
                        let _ = woken.try_recv();
                        watch.look().await;
                    }
                    else => return,
                }
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    async fn look(&mut self) {
        let now: BTreeMap<PathBuf, Stamp> =
            self.stamps.keys().map(|file| (file.clone(), stamp(file))).chain(self.in_directory()).collect();
        if now == self.stamps {
            return;
        }
        let only_modules = now.iter().all(|(file, stamp)| {
            self.stamps.get(file) == Some(stamp) || file.extension().is_some_and(|kind| kind == "wasm")
        });
        self.stamps = now;
        if !only_modules {
            self.reloader.reload().await;
        }
        self.reloader.refresh_plugins().await;
    }

    /// Files of a configuration directory, so that new ones are noticed.
    fn in_directory(&self) -> Vec<(PathBuf, Stamp)> {
        let Ok(entries) = std::fs::read_dir(self.reloader.path()) else { return Vec::new() };
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml"))
            .map(|path| (path.clone(), stamp(&path)))
            .collect()
    }

    fn follow(&mut self, files: Vec<PathBuf>) {
        let path = self.reloader.path().to_owned();
        let mut wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| directory_of(file)).collect();
        if path.is_dir() {
            wanted.insert(path);
        }
        for gone in self.directories.difference(&wanted) {
            let _ = self.notifier.unwatch(gone);
        }
        for new in wanted.difference(&self.directories) {
            if let Err(error) = self.notifier.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %new.display(), %error, "cannot watch; reload with SIGHUP");
            }
        }
        self.directories = wanted;
        // What was stamped before the files were read stays so stamped: a change
        // since then has not been read yet.
        let before = std::mem::take(&mut self.stamps);
        let in_directory = self.in_directory().into_iter().map(|(file, _)| file);
        self.stamps = files
            .into_iter()
            .chain(in_directory)
            .map(|file| {
                let stamp = before.get(&file).copied().unwrap_or_else(|| stamp(&file));
                (file, stamp)
            })
            .collect();
    }
}

fn directory_of(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

fn stamp(file: &Path) -> Stamp {
    let data = std::fs::metadata(file).ok()?;
    Some((data.len(), data.modified().ok()?))
}
