//! Large files and wide trees, watched where they arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use lockstep_proto::filesync::v1::ListFilesRequest;
use lockstep_tests::harness::{Installation, Ledger, Options, content};

/// The large file.
const LARGE_BYTES: usize = 1 << 30;
/// What it is made of.
const PIECE_BYTES: usize = 64 << 20;
/// Files of the tree, and directories that they are in.
const FILES: usize = 10_000;
const DIRECTORIES: usize = 100;

/// R1, R5, I2, I6, I7: a file of 1 GiB and a tree of 10,000 × 4 KiB arrive verified; inotify in the transfer directories of
/// the receivers sees files appear by rename only, and nobody write to one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_and_wide_trees_arrive_verified() {
    arrive().await;
}
