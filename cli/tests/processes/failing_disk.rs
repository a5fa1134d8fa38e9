//! Acknowledgements come from the disk, proven at the system call.
//!
//! A small library, compiled here and loaded before the C library, makes fdatasync and fsync fail from the moment a file
//! exists. A node that acknowledges without syncing would not notice; ours must refuse the write and stop.

use std::process::Command;

use crate::testnet::{Testnet, until};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int failing(void) {
    const char *file = getenv("ATOLL_TEST_SYNC_FAILS_IF");
    return file && access(file, F_OK) == 0;
}
int fdatasync(int fd) {
    if (failing()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
int fsync(int fd) {
    if (failing()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;

/// Removing the sync before the acknowledgement, anywhere between the store and the system call, makes this fail.
#[test]
#[cfg(target_os = "linux")]
fn a_write_is_not_acknowledged_if_the_disk_does_not_sync() {
    let folder = tempfile::tempdir().expect("a directory");
    let (source, library, trigger) =
        (folder.path().join("shim.c"), folder.path().join("shim.so"), folder.path().join("fail"));
    std::fs::write(&source, SHIM).expect("writable");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(compiled.success());

    let text = |path: &std::path::Path| path.to_str().expect("plain path").to_owned();
    let testnet = Testnet::up_with(
        1,
        23_200,
        &[("LD_PRELOAD", &text(&library)), ("ATOLL_TEST_SYNC_FAILS_IF", &text(&trigger))],
    );
    testnet.ok(&["put", "before", "kept"]);
    std::fs::write(&trigger, "").expect("writable");
    let refused = testnet.run(&["put", "after", "lost"]);
    assert_ne!(refused.code, 0, "acknowledged without a sync: {refused:?}");

    std::fs::remove_file(&trigger).expect("there");
    until("the node stops and says why", || testnet.log(1).contains("storage failed"));
    let stopped = testnet.run(&["testnet", "status"]);
    assert_eq!(stopped.code, 5, "the node must have stopped: {stopped:?}");
    testnet.ok(&["testnet", "start", "n1"]);
    assert!(testnet.ok(&["get", "before"]).contains("kept"));
}
