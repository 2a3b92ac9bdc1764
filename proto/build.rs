//! Compiles the contract with protox: no protoc, no other tool.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    collect("lockstep".into(), &mut files)?;
    files.sort();
    println!("cargo::rerun-if-changed=lockstep");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    // The typed set loses custom options (the rights next to each RPC), so what is embedded are the raw bytes.
    let raw = compiler.encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("lockstep.binpb"), raw)?;
    let set = prost_types_set(&compiler)?;
    tonic_prost_build::configure()
        .bytes(".lockstep.filesync.v1.UploadChunk.data")
        .bytes(".lockstep.filesync.v1.ContentChunk.data")
        .bytes(".lockstep.filesync.v1.GroupHashes.hashes")
        .bytes(".lockstep.filesync.v1.NewFile.content")
        .bytes(".lockstep.catalog.v1.FirmwareChunk.data")
        .compile_fds(set)?;
    Ok(())
}

fn prost_types_set(
    compiler: &protox::Compiler,
) -> Result<tonic_prost_build::FileDescriptorSet, Box<dyn Error>> {
    Ok(tonic_prost_build::FileDescriptorSet::decode(
        compiler.file_descriptor_set().encode_to_vec().as_slice(),
    )?)
}

fn collect(directory: PathBuf, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
