# What plain nbgrader commands, the formgrader and `course build` read; start them at the root of the checkout.
# Students' work, grades and the exchange stay below autograder/ and out of git.
import os
import sys
from pathlib import Path

c = get_config()
ROOT = Path(__file__).resolve().parent

# nbgrader starts `alembic` by name when it makes a gradebook, also where no environment was activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

c.CourseDirectory.course_id = "virtualization"
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.release_directory = "release/en"
c.CourseDirectory.submitted_directory = "autograder/work/submitted"
c.CourseDirectory.autograded_directory = "autograder/work/autograded"
c.CourseDirectory.feedback_directory = "autograder/work/feedback"
c.CourseDirectory.solution_directory = "autograder/work/solution"
c.CourseDirectory.source_with_tests_directory = "autograder/work/source_with_tests"
c.CourseDirectory.db_url = f"sqlite:///{ROOT}/autograder/gradebook.db"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", ".pytest_cache"]
c.Exchange.root = os.environ.get("NBGRADER_EXCHANGE", str(ROOT / "autograder" / "exchange"))

c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError"}

# A lesson boots machines: 300 s for a cell. Asking a kernel politely to end can cost four seconds; killing it none.
c.Execute.timeout = 300
c.Execute.shutdown_kernel = "immediate"
# Kernels on a host shared by many people talk over an encrypted channel (and stop complaining that they do not).
c.KernelManager.transport_encryption = "auto"

# Submissions are rebuilt on the released notebook before they are graded: one broken file must not stop the others.
c.Autograde.pre_convert_hook = "autograder.repair.drop_links"
c.Autograde.exporter_class = "autograder.repair.TolerantExporter"
c.Autograde.sanitize_preprocessors = [
    "autograder.repair.Repair",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]

# Tests run outside the student's process. A cell that ends its kernel costs its own marks: a fresh one goes on.
c.Autograde.autograde_preprocessors = [
    "autograder.remembering.CachedExecute",
    "nbgrader.preprocessors.IgnorePattern",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]

# What the checks said of each answer stays in the graded notebook, for reports.
c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {("language_info", "name"), ("course",)}

# Feedback goes to students: no hidden tests, no scripts that a student's output may carry.
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "autograder.feedback.HideHiddenTests",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {
    "clean_html": "autograder.feedback.clean",
    "strip_files_prefix": "autograder.feedback.clean_markdown",
}
