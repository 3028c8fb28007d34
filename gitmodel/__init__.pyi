from gitmodel.errors import GitmodelError as GitmodelError
from gitmodel.workflows.check import check_compat as check_compat
from gitmodel.workflows.export import export as export
from gitmodel.workflows.load import load as load
from gitmodel.workflows.save import save as save

__version__: str
