//! The first records of a registry: one operator of each role, and the local one, who is admin.

use lockstep_model::{
    Role,
    record::{self, OperatorRecord},
};
use lockstep_registry::{Commit, Precondition, Registry, RegistryError, SqliteRegistry};

use super::Layout;
use crate::problem::{Exit, Problem, Result};

/// The operators that `up` makes certificates and records for.
pub(crate) const OPERATORS: [(&str, Role); 4] = [
    ("local", Role::Admin),
    ("viewer", Role::Viewer),
    ("publisher", Role::Publisher),
    ("operator", Role::Operator),
];

/// Writes the records that are missing; what an admin changed stays.
pub(crate) async fn operators(layout: &Layout) -> Result<()> {
    let path = layout.registry();
    let failed = |error: RegistryError| {
        Problem::new(Exit::Unavailable, "could not write the operators into the registry", error)
            .at(path.display())
    };
    let registry = SqliteRegistry::open(&path).map_err(failed)?;
    for (name, role) in OPERATORS {
        seed(&registry, name, role).await.map_err(failed)?;
    }
    Ok(())
}

async fn seed<R: Registry>(registry: &R, name: &str, role: Role) -> std::result::Result<(), RegistryError> {
    let key = record::operator_key(name);
    let body = serde_json::to_string(&OperatorRecord { role }).expect("a role is text, which JSON can hold");
    let commit = Commit {
        preconditions: vec![Precondition::Absent(key.clone())],
        puts: vec![(key, body)],
        ..Commit::default()
    };
    match registry.commit(commit).await {
        Ok(_) | Err(RegistryError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_model::Epoch;
    use lockstep_registry::MemoryRegistry;

    use super::*;

    #[tokio::test]
    async fn what_an_admin_changed_stays() {
        let registry = MemoryRegistry::new(Epoch(uuid::Uuid::nil()));
        seed(&registry, "local", Role::Admin).await.expect("seeded");
        seed(&registry, "local", Role::Viewer).await.expect("left alone");
        let records = registry.get(vec![record::operator_key("local")]).await.expect("read");
        assert_eq!(records[0].as_ref().expect("there").body, r#"{"role":"admin"}"#);
    }
}
