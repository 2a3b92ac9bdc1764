//! The engine on a database file does what every engine does.

use lockstep_registry::SqliteRegistry;

lockstep_registry::conformance_properties!(tests(async || {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let registry = SqliteRegistry::open(&directory.path().join("registry.sqlite")).expect("a new database");
    (registry, directory)
}));
