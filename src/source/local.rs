//! Interprets a local path: a folder of DICOM files, a single one, or an archive of them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::archive::{self, Format, Limits};
use super::dicom_files::DicomFiles;
use super::dicom_objects::of_uid;
use super::{ImageSource, packed};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Pool;

/// Returns the series at `path`, all of them or only `series`. An archive's files are held in
/// memory, charged to `memory`; a folder's files are read when needed.
///
/// # Errors
/// [`ErrorKind::Io`] if the path cannot be read; [`ErrorKind::InvalidRequest`] if it is neither
/// folder nor file; propagates the errors of reading archives.
pub async fn find(
    path: &Path,
    series: Option<&str>,
    memory: &Arc<Pool>,
) -> Result<Vec<Box<dyn ImageSource>>> {
    let named = |e: Error| e.context(path.display());
    let Some((file, size, format)) = open(path)? else {
        return Ok(vec![Box::new(DicomFiles::new(path, series.map(str::to_owned)))]);
    };
    let limits = Limits::of_bytes(memory.limit());
    if size > limits.bytes {
        return Err(named(limits.too_large()));
    }
    let bounds = packed::Bounds { limits, memory: Arc::clone(memory), held: Arc::new(()) };
    let found = packed::series(file, size, format, bounds).await.map_err(named)?;
    let found = of_uid(found, series).map_err(named)?;
    Ok(found.into_iter().map(|one| Box::new(one) as Box<dyn ImageSource>).collect())
}

/// Opens an archive and returns its size and format; `None` for a folder or any other file.
fn open(path: &Path) -> Result<Option<(File, u64, Format)>> {
    let unreadable = |e: std::io::Error| {
        let message = format!("{} cannot be read: {}", path.display(), e.kind());
        Error::new(ErrorKind::Io, message).caused_by(e)
    };
    // Checked before opening: opening a pipe blocks until it has a writer.
    let metadata = path.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Ok(None);
    }
    if !metadata.is_file() {
        let message = format!("{} is neither a file nor a folder", path.display());
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut head = Vec::with_capacity(archive::HEAD);
    (&mut file).take(archive::HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
    match archive::format(&head) {
        Some(format @ (Format::Zip | Format::Tar | Format::Gzip)) => {
            file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            Ok(Some((file, metadata.len(), format)))
        }
        Some(Format::Dicom | Format::Json) | None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::phantom::PhantomArgs;

    fn phantom(out: &Path) -> Vec<std::path::PathBuf> {
        let out = out.to_owned();
        let phantom =
            PhantomArgs { out, seed: 1, size: 32, slices: 4, spacing: 5.0, slice_spacing: 5.0 };
        phantom.write().unwrap();
        crate::dicom::p10::list_files(&phantom.out.join("dicom")).unwrap()
    }

    async fn instances(path: &Path, series: Option<&str>) -> Result<usize> {
        let memory = Pool::new("inputs", "MAX_INPUT_BYTES", Some(64 << 20));
        let found = find(path, series, &memory).await?;
        let [only] = &found[..] else { panic!("{} series", found.len()) };
        Ok(only.series().await?.instances.len())
    }

    #[tokio::test]
    async fn a_folder_a_file_and_archives_are_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let files = phantom(&folder.path().join("p"));
        assert_eq!(instances(files[0].parent().unwrap(), None).await.unwrap(), 4);
        assert_eq!(instances(&files[0], None).await.unwrap(), 1);
        let zip = folder.path().join("a name.bin");
        let mut archive = zip::ZipWriter::new(File::create(&zip).unwrap());
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
            File::create(folder.path().join("images.tgz")).unwrap(),
            flate2::Compression::fast(),
        ));
        for (number, file) in files.iter().enumerate() {
            archive
                .start_file(number.to_string(), zip::write::SimpleFileOptions::default())
                .unwrap();
            archive.write_all(&std::fs::read(file).unwrap()).unwrap();
            tar.append_path_with_name(file, number.to_string()).unwrap();
        }
        archive.finish().unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        assert_eq!(instances(&zip, None).await.unwrap(), 4);
        assert_eq!(instances(&folder.path().join("images.tgz"), None).await.unwrap(), 4);
        for path in [&zip, &files[0]] {
            let error = instances(path, Some("1.2.3")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("notes.txt");
        std::fs::write(&text, "nothing").unwrap();
        let cut = folder.path().join("cut.zip");
        std::fs::write(&cut, b"PK\x03\x04 and no more").unwrap();
        for (path, kind) in [
            (text, ErrorKind::NotFound),
            (cut, ErrorKind::InvalidRequest),
            (folder.path().join("absent.zip"), ErrorKind::Io),
            ("/dev/null".into(), ErrorKind::InvalidRequest),
        ] {
            let error = instances(&path, None).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(&*path.to_string_lossy()), "{error}");
        }
        let memory = Pool::new("inputs", "MAX_INPUT_BYTES", Some(64 << 10));
        let large = folder.path().join("large.zip");
        std::fs::write(&large, [b"PK\x03\x04".as_slice(), &[0; 65_600]].concat()).unwrap();
        let Err(error) = find(&large, None, &memory).await else { panic!("it was read") };
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    }
}
