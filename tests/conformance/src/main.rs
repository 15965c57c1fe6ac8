//! The native runner: `webjepa-conformance DIR [PART …]` prints the report of the CPU backend as JSON.

use std::path::Path;
use std::process::ExitCode;

use webjepa_conformance::{Folder, run};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next() else {
        eprintln!("usage: webjepa-conformance DIR [PART …]");
        return ExitCode::FAILURE;
    };
    let mut folder = Folder::default();
    if let Err(error) = read(Path::new(&dir), "", &mut folder) {
        eprintln!("{dir} cannot be read: {error}");
        return ExitCode::FAILURE;
    }
    let report = pollster::block_on(run(&folder, &arguments.collect::<Vec<_>>()));
    match serde_json::to_string(&report.checks) {
        Ok(json) => println!("{json}"),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::SUCCESS
}

fn read(dir: &Path, prefix: &str, folder: &mut Folder) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &format!("{name}/"), folder)?;
        } else {
            folder.0.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
